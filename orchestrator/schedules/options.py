"""How a schedule behaves: overlap, catch-up, failures, alerts, outputs. Pairs that contradict are refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self, get_args
from urllib.parse import urlsplit

from orchestrator.schedules.layout import DEFAULT_PREFIX, check_template
from reasoning.errors import BadInput, nearest

Overlap = Literal["skip", "queue_one", "queue_all", "cancel_running", "allow"]
CatchUp = Literal["none", "latest", "all"]
Event = Literal["failed", "missed", "accuracy_drop", "paused"]

OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)
CATCH_UPS: tuple[CatchUp, ...] = get_args(CatchUp)

DEFAULT_WINDOW_S = 3600.0
MAX_WINDOW_S = 366 * 86400.0
MAX_CAP = 500

_CONTRADICTIONS: Mapping[tuple[str, str], str] = {
    (
        "all",
        "skip",
    ): "all missed slots are to run, but a slot that meets a running one is skipped, so that only the first would run",
    ("all", "queue_one"): "all missed slots are to run, but only one may wait, so that the others would be skipped",
    ("all", "cancel_running"): "all missed slots are to run, but each would cancel the one before it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts:
    """Where to report, by webhook. Without a `url` nothing is sent."""

    url: str = ""
    secret: str = ""
    """Signs the deliveries."""
    events: tuple[Event, ...] = get_args(Event)
    accuracy_drop: float = 0.05
    """Share of known answers lost against the previous run that counts as a drop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of a schedule beside its rule. Field names are the JSON keys."""

    overlap: Overlap = "skip"
    """When a slot is due while an earlier one runs."""
    queue_cap: int = 10
    """Slots that may wait under `queue_all`."""
    catch_up: CatchUp = "latest"
    """What becomes of slots that were due while no scheduler ran."""
    catch_up_window_s: float = DEFAULT_WINDOW_S
    """Slots older than this are missed whatever the policy."""
    catch_up_cap: int = 10
    """Slots that `all` runs at most."""
    pause_after_failures: int | None = None
    """Failed runs in a row after which the schedule pauses itself."""
    failed_share: float = 0.5
    """A run with more than this share of its rows unanswered counts as failed."""
    on_bad_row: Literal["fail", "skip"] = "fail"
    priority: Literal["interactive", "batch", "background"] = "batch"
    incremental: bool = True
    """Whether stored results of unchanged rows are used."""
    output_prefix: str = DEFAULT_PREFIX
    """Template of the object-store prefix that results of a slot are written below."""
    parquet: bool = False
    """Whether answers are also written as parquet, partitioned by slot date."""
    keep_days: float | None = None
    """Results of slots older than this are removed; None keeps them."""
    keep_runs: int | None = None
    """Results of all but the newest so many runs are removed; None keeps them."""
    alerts: Alerts = field(default_factory=Alerts)

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Self:
        """Read decoded JSON. Raises BadInput on unknown names, unusable values and contradictions."""
        values = dict(_known(cls, data, ""))
        if "alerts" in values:
            values["alerts"] = _alerts(values["alerts"])
        return replace(cls(), **values).checked()

    def checked(self) -> Self:
        """The options themselves. Raises BadInput."""
        for name, usable, advice in _RANGES:
            value = getattr(self, name)
            if not usable(value):
                raise _bad(name, f"{name} is {value!r}; {advice}")
        why = _CONTRADICTIONS.get((self.catch_up, self.overlap))
        if why:
            raise _bad(
                "overlap",
                f"catch_up={self.catch_up} and overlap={self.overlap} contradict each other: {why}. "
                "Use overlap=queue_all or allow, or catch_up=latest",
                "contradiction",
            )
        check_template(self.output_prefix)
        return self

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values under the field names."""
        values = asdict(self)
        values["alerts"]["events"] = list(self.alerts.events)
        return values


def _alerts(data: Any) -> Alerts:
    if not isinstance(data, Mapping):
        raise _bad("alerts", "alerts must be an object with url, secret, events and accuracy_drop", "invalid_type")
    values = dict(_known(Alerts, data, "alerts."))
    events = values.get("events", get_args(Event))
    for name in events if isinstance(events, list | tuple) else (events,):
        if name not in get_args(Event):
            hint = nearest(str(name), get_args(Event))
            raise _bad("alerts.events", f"alerts.events holds {name!r}.{hint} Use {', '.join(get_args(Event))}")
    alerts = replace(Alerts(), **{**values, "events": tuple(events)})
    for name in ("url", "secret"):
        if not isinstance(getattr(alerts, name), str):
            raise _bad(f"alerts.{name}", f"alerts.{name} must be text", "invalid_type")
    if alerts.url and (urlsplit(alerts.url).scheme not in ("http", "https") or not urlsplit(alerts.url).hostname):
        raise _bad("alerts.url", "alerts.url must be an http or https address")
    if not _share(alerts.accuracy_drop):
        raise _bad("alerts.accuracy_drop", "alerts.accuracy_drop must be from 0 to 1")
    return alerts


def _known(record: type[Any], data: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
    names = {item.name for item in fields(record)}
    for name in data:
        if name not in names:
            hint = nearest(str(name), names)
            raise _bad(f"{prefix}{name}", f'unknown option "{prefix}{name}".{hint}', "unknown_field")
    return data


def _bad(name: str, message: str, code: str = "invalid_options") -> BadInput:
    return BadInput(f"{message}." if message[-1] not in ".?" else message, code=code, field=f"options.{name}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("overlap", lambda v: v in OVERLAPS, f"use one of: {', '.join(OVERLAPS)}"),
    ("catch_up", lambda v: v in CATCH_UPS, f"use one of: {', '.join(CATCH_UPS)}"),
    ("catch_up_window_s", lambda v: _number(v) and 0 < v <= MAX_WINDOW_S, "use seconds, a year at most"),
    ("queue_cap", lambda v: _count(v, MAX_CAP), f"use 1 to {MAX_CAP}"),
    ("catch_up_cap", lambda v: _count(v, MAX_CAP), f"use 1 to {MAX_CAP}"),
    ("pause_after_failures", lambda v: v is None or _count(v, 1000), "use 1 to 1000, or null"),
    ("failed_share", _share, "use 0 to 1"),
    ("on_bad_row", lambda v: v in ("fail", "skip"), "use fail or skip"),
    ("priority", lambda v: v in ("interactive", "batch", "background"), "use interactive, batch or background"),
    ("incremental", lambda v: isinstance(v, bool), "use true or false"),
    ("parquet", lambda v: isinstance(v, bool), "use true or false"),
    ("output_prefix", lambda v: isinstance(v, str), "it must be text"),
    ("keep_days", lambda v: v is None or (_number(v) and v > 0), "use a number of days above 0, or null"),
    ("keep_runs", lambda v: v is None or _count(v, 100_000), "use 1 to 100000, or null"),
)
