"""The rule of a schedule: cron, interval or calendar, read from JSON and refused when it cannot mean anything."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any, Literal, Self, get_args

from cronsim import CronSim, CronSimError

from orchestrator.schedules.zones import instant_of, zone_named
from reasoning.errors import BadInput, nearest

Kind = Literal["cron", "interval", "calendar"]

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LAST_DAY = -1
"""Among `month_days`: the last day of the month."""

MIN_INTERVAL_S = 60
"""Also the finest that five cron fields can say."""
MAX_INTERVAL_S = 366 * 86400
MAX_JITTER_S = 3600.0
MAX_RUNS = 1_000_000
MAX_CRON = 200
"""Characters of a cron expression."""
MAX_TERMS = 60
"""Entries of a list in one cron field."""
MAX_TIMES = 24
"""Times of day of a calendar rule."""

_FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of month": "1 to 31, or L for the last, and a day that one of the months has",
    "month": "1 to 12 or JAN to DEC",
    "day of week": "0 to 7 or SUN to SAT (0 and 7 are Sunday)",
}
"""Fields of a cron expression, and what may stand in them."""
_TERM = re.compile(r"[0-9A-Z*/#-]+")
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When slots are due. Field names are the JSON keys; times are seconds since the epoch."""

    kind: Kind
    cron: str = ""
    """Five fields: minute, hour, day of month, month, day of week."""
    every_s: float = 0.0
    """Seconds between slots of an interval, counted from `start`, or from the epoch without one."""
    times: tuple[str, ...] = ()
    """Times of day (`HH:MM`) of a calendar rule."""
    weekdays: tuple[str, ...] = ()
    """Of a calendar rule; empty means every day."""
    month_days: tuple[int, ...] = ()
    """Of a calendar rule, -1 for the last; instead of `weekdays`."""
    zone: str = "UTC"
    start: float | None = None
    """No slot before this."""
    end: float | None = None
    """No slot at or after this."""
    jitter_s: float = 0.0
    """A run begins up to this long after its slot, by the same part of it for the same slot."""
    max_runs: int | None = None

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Self:
        """Read decoded JSON. `start` and `end` may be ISO 8601 texts, in the rule's zone unless they name another.

        Raises:
            BadInput: unknown field or zone, an expression that cannot be read, or values that contradict.
        """
        names = {field.name for field in fields(cls)}
        for name in data:
            if name not in names:
                raise _bad(str(name), f'unknown rule field "{name}".{nearest(str(name), names)}', "unknown_field")
        values = {name: value for name, value in data.items() if value is not None}
        kind: Any = values.get("kind")
        if kind not in get_args(Kind):
            raise _bad("kind", f"rule.kind is {kind!r}; use one of: {', '.join(get_args(Kind))}")
        zone = values.get("zone", "UTC")
        if not isinstance(zone, str):
            raise _bad("zone", "rule.zone must be text, such as Europe/Berlin")
        for name in ("start", "end"):
            if name in values:
                values[name] = _moment(name, values[name], zone)
        for name in ("times", "weekdays", "month_days"):
            if name in values:
                values[name] = _list(name, values[name])
        rule = replace(cls(kind=kind), **values)
        return rule.checked()

    def checked(self) -> Self:
        """The rule itself, times and names in one spelling. Raises BadInput."""
        zone_named(self.zone)
        self._check_numbers()
        if self.kind == "cron":
            return replace(self, cron=checked_cron(self.cron))
        if self.kind == "calendar":
            return self._checked_calendar()
        return self

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values, those at their defaults left out; `from_mapping` reads it back."""
        blank = type(self)(kind=self.kind)
        found = {name: value for name, value in asdict(self).items() if value != getattr(blank, name)}
        return {"kind": self.kind, "zone": self.zone} | {
            name: list(value) if isinstance(value, tuple) else value for name, value in found.items()
        }

    def expressions(self) -> tuple[str, ...]:
        """The cron expressions that a cron or calendar rule stands for."""
        if self.kind == "cron":
            return (self.cron,)
        days = ",".join("L" if day == LAST_DAY else str(day) for day in self.month_days) or "*"
        week = ",".join(name.upper() for name in self.weekdays) or "*"
        return tuple(f"{int(at[3:])} {int(at[:2])} {days} * {week}" for at in self.times)

    def _check_numbers(self) -> None:
        for name, usable, advice in _RANGES:
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if value is not None and not (number and usable(value)):
                raise _bad(name, f"rule.{name} is {value!r}; {advice}")
        if self.kind == "interval" and not MIN_INTERVAL_S <= self.every_s <= MAX_INTERVAL_S:
            raise _bad("every_s", f"rule.every_s is {self.every_s:g}; use {MIN_INTERVAL_S} to {MAX_INTERVAL_S} seconds")
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise _bad("end", "rule.end is not after rule.start, so that nothing would ever run", "contradiction")

    def _checked_calendar(self) -> Self:
        if not self.times or len(self.times) > MAX_TIMES:
            raise _bad("times", f"rule.times has {len(self.times)} entries; give 1 to {MAX_TIMES} times such as 03:00")
        for at in self.times:
            if not isinstance(at, str) or not _TIME.fullmatch(at):
                raise _bad("times", f"rule.times holds {at!r}; write hours and minutes, such as 03:00")
        weekdays = tuple(str(day).lower()[:3] for day in self.weekdays)
        for given, day in zip(self.weekdays, weekdays, strict=True):
            if day not in WEEKDAYS:
                raise _bad("weekdays", f"rule.weekdays holds {given!r}; use {', '.join(WEEKDAYS)}")
        for number in self.month_days:
            if not isinstance(number, int) or not (1 <= number <= 31 or number == LAST_DAY):
                raise _bad("month_days", f"rule.month_days holds {number!r}; use 1 to 31, or -1 for the last day")
        if weekdays and self.month_days:
            raise _bad("month_days", "give weekdays or month_days, not both; a cron rule can say more", "contradiction")
        in_order = tuple(day for day in WEEKDAYS if day in weekdays)
        return replace(self, times=tuple(sorted(set(self.times))), weekdays=in_order)


def checked_cron(text: Any) -> str:
    """A cron expression in one spelling. Raises BadInput that names the field of it which is wrong."""
    if not isinstance(text, str) or len(text) > MAX_CRON:
        raise _bad("cron", f"rule.cron must be text of {MAX_CRON} characters at most", "invalid_cron")
    parts = text.upper().split()
    if len(parts) != len(_FIELDS):
        named = ", ".join(_FIELDS)
        raise _bad("cron", f'"{text}" has {len(parts)} fields; write five: {named}', "invalid_cron")
    for (name, advice), part in zip(_FIELDS.items(), parts, strict=True):
        terms = part.split(",")
        if len(terms) > MAX_TERMS or not all(_TERM.fullmatch(term) for term in terms):
            raise _bad(
                "cron", f'the field {name} of "{text}" cannot be read: "{part[:40]}"; use {advice}', "invalid_cron"
            )
    try:
        CronSim(" ".join(parts), datetime(2026, 1, 1))  # noqa: DTZ001 - parsed only
    except CronSimError as error:
        what = str(error).removeprefix("Bad ").replace("-", " ")
        advice = next((words for name, words in _FIELDS.items() if name == what), "")
        raise _bad(
            "cron", f'the field {what} of "{text}" means no time that ever comes; use {advice}', "invalid_cron"
        ) from None
    return " ".join(parts)


_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("every_s", lambda v: v >= 0, "use seconds"),
    ("jitter_s", lambda v: 0 <= v <= MAX_JITTER_S, f"use 0 to {MAX_JITTER_S:g} seconds"),
    ("max_runs", lambda v: isinstance(v, int) and 1 <= v <= MAX_RUNS, f"use 1 to {MAX_RUNS}, or null"),
    ("start", lambda v: 0 <= v < 2**36, "use an ISO 8601 time, or seconds since the epoch"),
    ("end", lambda v: 0 <= v < 2**36, "use an ISO 8601 time, or seconds since the epoch"),
)


def _moment(name: str, value: Any, zone: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise _bad(name, f'rule.{name} is "{value[:60]}"; write it as 2026-11-30T03:00') from None
    return instant_of(moment, zone_named(zone)) if moment.tzinfo is None else moment.timestamp()


def _list(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) > MAX_TERMS:
        raise _bad(name, f"rule.{name} must be a list of {MAX_TERMS} entries at most", "invalid_type")
    return tuple(value)


def _bad(field: str, message: str, code: str = "invalid_rule") -> BadInput:
    return BadInput(f"{message}." if message[-1] not in ".?" else message, code=code, field=f"rule.{field}")
