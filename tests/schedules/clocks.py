"""Slots found the slow way: every minute of a span is looked at. Shares no code with what it checks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo


def at(text: str, zone: str = "UTC") -> float:
    """Seconds since the epoch of an ISO 8601 time; `fold` by a trailing `*`."""
    moment = datetime.fromisoformat(text.rstrip("*"))
    return moment.replace(tzinfo=ZoneInfo(zone), fold=int(text.endswith("*"))).timestamp()


def said(instants: list[float], zone: str) -> list[str]:
    return [datetime.fromtimestamp(instant, ZoneInfo(zone)).strftime("%m-%d %H:%M %z") for instant in instants]


def field(text: str, low: int, high: int) -> set[int]:
    """A cron field of numbers, ranges, steps and lists."""
    found: set[int] = set()
    for term in text.split(","):
        body, _, step = term.partition("/")
        if body == "*":
            first, last = low, high
        elif "-" in body:
            first, last = (int(part) for part in body.split("-"))
        else:
            first = int(body)
            last = high if step else first
        found |= set(range(first, last + 1, int(step or 1)))
    return found


def matches(expression: str, wall: datetime) -> bool:
    minute, hour, day, month, weekday = expression.split()
    week = {number % 7 for number in field(weekday, 0, 7)}
    by_day = wall.day in field(day, 1, 31)
    by_week = wall.isoweekday() % 7 in week
    either = not day.startswith("*") and not weekday.startswith("*")
    return (
        wall.minute in field(minute, 0, 59)
        and wall.hour in field(hour, 0, 23)
        and wall.month in field(month, 1, 12)
        and ((by_day or by_week) if either else (by_day and by_week))
    )


def slots(expression: str, zone: str, since: float, until: float) -> list[float]:
    """Instants after `since` and up to `until`, under the semantics of `orchestrator.schedules.occurrences`."""
    place = ZoneInfo(zone)
    first = int(since // 60) * 60 - 86400
    minutes = [float(first + 60 * step) for step in range(int((until - first) // 60) + 1)]
    walls = {minute: datetime.fromtimestamp(minute, place).replace(tzinfo=None) for minute in minutes}
    if expression.split()[1] == "*":
        found = {minute for minute in minutes if matches(expression, walls[minute])}
    else:
        shown: dict[datetime, float] = {}
        for minute in minutes:
            shown.setdefault(walls[minute], minute)
        found = set()
        wall, last = min(shown), max(shown)
        while wall <= last:
            if matches(expression, wall):
                found.add(shown[wall] if wall in shown else min(at for seen, at in shown.items() if seen > wall))
            wall += timedelta(minutes=1)
    return sorted(minute for minute in found if since < minute <= until)


def utc(instant: float) -> datetime:
    return datetime.fromtimestamp(instant, UTC)
