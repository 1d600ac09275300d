"""Between a clock on a wall and an instant, on the days when clocks change too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from reasoning.errors import BadInput, nearest

_SECOND = timedelta(seconds=1)


def zone_named(name: str) -> ZoneInfo:
    """A time zone of the IANA database. Raises BadInput (`unknown_zone`) with the nearest name."""
    if name not in _names():
        raise BadInput(
            f'there is no time zone "{name[:80]}".{nearest(name[:80], _names())} Use an IANA name such as '
            "Europe/Berlin or UTC.",
            code="unknown_zone",
            field="rule.zone",
        )
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(available_timezones())


def wall_time(instant: float, zone: ZoneInfo) -> datetime:
    """What a clock in the zone shows, as a datetime without a zone; microseconds are dropped."""
    return datetime.fromtimestamp(instant, zone).replace(tzinfo=None, microsecond=0)


def instant_of(wall: datetime, zone: ZoneInfo) -> float:
    """Seconds since the epoch at which a clock in the zone shows `wall`.

    A time that is shown twice means the first. A time that is skipped means the first instant after the gap.
    """
    first = wall.replace(tzinfo=zone, fold=0)
    second = wall.replace(tzinfo=zone, fold=1)
    if first.utcoffset() == second.utcoffset() or _exists(first, zone):
        return first.timestamp()
    return _end_of_gap(second.astimezone(UTC), first.astimezone(UTC), zone)


def _exists(moment: datetime, zone: ZoneInfo) -> bool:
    return moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0) == moment.replace(tzinfo=None, fold=0)


def _end_of_gap(before: datetime, after: datetime, zone: ZoneInfo) -> float:
    """The instant of the change, which lies after `before` and not after `after`."""
    old = before.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + (after - before) / 2
        middle = middle.replace(microsecond=0) if middle.replace(microsecond=0) > before else before + _SECOND
        if middle.astimezone(zone).utcoffset() == old:
            before = middle
        else:
            after = middle
    return after.timestamp()
