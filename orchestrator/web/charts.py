"""Small drawings as numbers for SVG attributes: bars over time, stacked bars. No script, no style attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.web import numbers
from storage.rollups import Sums


@dataclass(frozen=True, slots=True)
class Bar:
    """Where the pointer finds one bucket of time, and what it then tells."""

    x: float
    width: float
    told: str


@dataclass(frozen=True, slots=True)
class Columns:
    """Bars over time in a box of `width` by `height`, oldest first. The bars are a path for each kind: few elements."""

    width: int
    height: int
    ended: str
    """Path of the buckets that are over, failures included."""
    partial: str
    """Path of the last bucket, which has not ended."""
    failed: str
    """Path of the part of each bar that failed, drawn over it."""
    bars: list[Bar]
    top: int
    """Queries of the tallest bar."""


def columns(buckets: Sequence[Sums], last_at: float, width_s: int, *, width: int = 360, height: int = 72) -> Columns:
    """A bar for each bucket of `width_s` seconds; the last begins at `last_at` and has not ended.

    A failure stands at least two pixels tall, so that one among thousands is seen.
    """
    top = max((sums.ended for sums in buckets), default=0)
    step = width / max(1, len(buckets))
    wide = step - (1.0 if step > 3 else 0.4)
    ended, failed, bars = [], [], []
    for place, sums in enumerate(buckets):
        tall, bad = (_tall(amount, top, height) for amount in (sums.ended, sums.failed))
        ended.append(_bar(place * step, wide, max(tall, bad), height))
        failed.append(_bar(place * step, wide, bad, height))
        if sums.ended:
            at = last_at - width_s * (len(buckets) - 1 - place)
            bars.append(Bar(round(place * step, 1), round(step, 1), _told(sums, at)))
    return Columns(width, height, "".join(ended[:-1]), "".join(ended[-1:]), "".join(failed), bars, top)


def _tall(amount: int, top: int, height: int) -> float:
    return max(2.0, amount / top * height) if amount else 0.0


def _bar(x: float, width: float, tall: float, height: int) -> str:
    return f"M{x:.1f} {height}v{-tall:.1f}h{width:.1f}v{tall:.1f}z" if tall else ""


def _told(sums: Sums, at: float) -> str:
    ran, waited = numbers.seconds(sums.running_s(0.5)), numbers.seconds(sums.waiting_s(0.5))
    counts = f"{numbers.count(sums.ended)} ended, {numbers.count(sums.failed)} failed"
    return f"{numbers.minute(at)}: {counts}, {numbers.count(sums.tokens)} tokens; median wait {waited}, run {ran}"


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a stacked bar."""

    name: str
    value: float
    x: float
    width: float


def stacked(parts: Sequence[tuple[str, float]], *, width: float = 1000.0, total: float | None = None) -> list[Segment]:
    """Segments over `width`; a part that is there keeps at least half a percent, so that one failure is seen."""
    whole = total if total is not None else sum(value for _, value in parts)
    if whole <= 0:
        return []
    wide = [(name, value, max(0.005 * width, value / whole * width)) for name, value in parts if value > 0]
    scale = min(1.0, width / sum(each for _, _, each in wide)) if wide else 1.0
    segments, x = [], 0.0
    for name, value, each in wide:
        segments.append(Segment(name, value, round(x, 2), round(each * scale, 2)))
        x += each * scale
    return segments
