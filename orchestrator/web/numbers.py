"""Numbers and times as people read them: short, exact where it matters, never jumping in width for no reason."""

from __future__ import annotations

from datetime import UTC, datetime

from markupsafe import Markup

DASH = "\N{EN DASH}"
"""Stands for a number that there is none of; zero is a number."""

_STEPS = ((86400.0, "d", 3600.0, "h"), (3600.0, "h", 60.0, "min"), (60.0, "min", 1.0, "s"))
_BYTES = ("B", "kB", "MB", "GB", "TB")


def count(value: float | None) -> str:
    """A count with thin separators."""
    return DASH if value is None else f"{value:,.0f}".replace(",", "\u202f")


def seconds(value: float | None) -> str:
    """A duration: `84 ms`, `3.2 s`, `2 min 05 s`, `1 h 12 min`, `3 d 4 h`."""
    if value is None:
        return DASH
    value = max(0.0, value)
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    for size, unit, lower, lower_unit in _STEPS:
        if value >= size - 0.5 * lower:
            whole, rest = divmod(round(value / lower), round(size / lower))
            return f"{whole} {unit} {rest:02d} {lower_unit}" if unit != "d" else f"{whole} {unit} {rest} {lower_unit}"
    return f"{value:.0f} s"


def size(value: float | None) -> str:
    """Bytes in decimal units."""
    if value is None:
        return DASH
    for unit in _BYTES:
        if value < 1000 or unit == _BYTES[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return DASH


def money(value: float | None) -> str:
    """A cost in whatever the prices are in: to the hundredth, small ones to two digits that say something."""
    if value is None:
        return DASH
    if 0 < value < 1:
        return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"
    return f"{value:,.2f}".replace(",", "\u202f")


def percent(part: float, whole: float) -> str:
    """A share rounded down, so that 100 % means all of it; a dash for a share of nothing."""
    if not whole:
        return DASH
    tenths = int(part * 1000 / whole)
    return f"{tenths // 10} %" if tenths in (0, 1000) else f"{tenths / 10:.1f} %"


def ratio(value: float | None, digits: int = 2) -> str:
    """A number between -1 and 1."""
    return DASH if value is None else f"{value:.{digits}f}".replace("-", "\u2212")


def rate(per_second: float | None) -> str:
    """Things per second, minute or hour, whichever reads best."""
    if per_second is None:
        return DASH
    for scale, unit in ((1.0, "s"), (60.0, "min"), (3600.0, "h")):
        value = per_second * scale
        if value >= 0.95 or unit == "h":
            return f"{value:.1f} / {unit}" if value < 99.5 else f"{count(value)} / {unit}"
    return DASH


def ago(at: float | None, now: float) -> Markup | str:
    """How long ago, with the time in UTC beside it for the pointer; the script turns the title into local time."""
    if at is None:
        return DASH
    gap = now - at
    if abs(gap) < 1.5:
        return _time(at, "just now")
    return _time(at, f"{about(gap)} ago" if gap > 0 else f"in {about(-gap)}")


def about(value: float) -> str:
    """A duration in its largest unit: beyond a minute nobody counts seconds."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if value >= size * (1 if unit != "d" else 2):
            return f"{value / size:.0f} {unit}"
    return f"{value:.0f} s"


def moment(at: float | None) -> Markup | str:
    """A time to the second, in UTC."""
    if at is None:
        return DASH
    return _time(at, datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S"))


def minute(at: float) -> str:
    """A time to the minute, in UTC, as plain text: for the titles of charts and the choices of forms."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _time(at: float, words: str) -> Markup:
    stamp = datetime.fromtimestamp(at, UTC)
    title = stamp.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(stamp.strftime("%Y-%m-%dT%H:%M:%SZ"), title, words)
