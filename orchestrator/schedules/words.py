"""A rule as a sentence."""

from __future__ import annotations

from datetime import datetime

from cronsim import CronSim

from orchestrator.schedules.rule import LAST_DAY, Rule
from orchestrator.schedules.zones import zone_named

_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
_DAY_NAMES = {
    "mon": "Monday",
    "tue": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "fri": "Friday",
    "sat": "Saturday",
    "sun": "Sunday",
}


def sentence(rule: Rule) -> str:
    """What the rule says, in plain English, such as `At 03:00 every day, Europe/Berlin time`."""
    parts = [_when(rule)]
    if rule.kind != "interval":
        parts.append("UTC" if rule.zone == "UTC" else f"{rule.zone} time")
    if rule.start is not None:
        parts.append(f"from {shown(rule.start, rule.zone)}")
    if rule.end is not None:
        parts.append(f"until {shown(rule.end, rule.zone)}")
    if rule.jitter_s:
        parts.append(f"each up to {duration(rule.jitter_s)} later")
    if rule.max_runs is not None:
        parts.append(f"{rule.max_runs} {'run' if rule.max_runs == 1 else 'runs'} at most")
    return ", ".join(parts)


def shown(instant: float, zone: str) -> str:
    """An instant as a clock in the zone shows it, to the minute."""
    return datetime.fromtimestamp(instant, zone_named(zone)).strftime("%Y-%m-%d %H:%M")


def duration(seconds: float) -> str:
    """Such as `90 minutes` or `1 day`: in the largest unit that divides it."""
    for size, name in _UNITS:
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{seconds:g} seconds"


def _when(rule: Rule) -> str:
    if rule.kind == "interval":
        return f"Every {duration(rule.every_s).removeprefix('1 ')}"
    if rule.kind == "cron":
        return CronSim(rule.cron, datetime(2026, 1, 1)).explain()  # noqa: DTZ001 - the date plays no part
    return f"At {_and(rule.times)} {_days(rule)}"


def _days(rule: Rule) -> str:
    if rule.weekdays:
        return f"on {_and(tuple(_DAY_NAMES[day] for day in rule.weekdays))}"
    if not rule.month_days:
        return "every day"
    numbers = sorted(day for day in rule.month_days if day != LAST_DAY)
    names = [f"day {day}" for day in numbers] + (["the last day"] if LAST_DAY in rule.month_days else [])
    return f"on {_and(tuple(names))} of every month"


def _and(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
