"""Which slots are due, and what is to become of each. A pure function of the schedule, since when, and now."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Literal

from orchestrator.schedules.occurrences import occurrences
from orchestrator.schedules.options import MAX_CAP, Options
from orchestrator.schedules.rule import Rule
from orchestrator.schedules.words import duration, shown

Action = Literal["run", "skipped", "missed"]

ON_TIME_S = 60.0
"""A slot is on time for this long: no scheduler is ever exactly punctual."""
LISTED_S = 31 * 86400.0
"""Slots older than this are told of in one row and not one by one."""
AT_ONCE = 500
"""Slots decided per call when there are many; the rest follows at the next."""
LOOKED_AT = AT_ONCE + MAX_CAP
"""With more slots than this ahead, each of the first `AT_ONCE` has more newer ones than any cap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the decision depends on beside time."""

    rule: Rule
    options: Options
    paused_at: float | None = None
    runs_left: int | None = None
    """Under `rule.max_runs`; None means no limit."""


@dataclass(frozen=True, slots=True)
class Due:
    """One slot and what becomes of it."""

    due_at: float
    action: Action
    reason: str = ""
    """One word: paused, late, superseded, over_cap, unattended."""
    note: str = ""
    """The sentence to it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Slots in the order of their times, and up to where everything is decided."""

    slots: tuple[Due, ...]
    cursor_at: float
    more: bool = False
    """Whether slots up to now are left for the next call."""


def slots_due(plan: Plan, since: float, now: float) -> Decision:
    """Decide about every slot after `since` and up to `now`. A clock that went backwards yields nothing.

    The decision about a slot never depends on what runs: that is for `overlap`.
    """
    if now <= since:
        return Decision((), since)
    slots: list[Due] = []
    if since < now - LISTED_S:
        slots += _unlisted(plan.rule, since, now - LISTED_S)
        since = now - LISTED_S
    times = list(islice(takewhile(lambda due: due <= now, occurrences(plan.rule, since)), LOOKED_AT + 1))
    more = len(times) > LOOKED_AT
    times = times[:AT_ONCE] if more else times
    slots += _judged(plan, times, now, more=more)
    return Decision(tuple(slots), times[-1] if more else now, more)


def next_due(plan: Plan, since: float) -> float | None:
    """The first slot after `since`; None when there is none any more."""
    if plan.runs_left is not None and plan.runs_left <= 0:
        return None
    return next(occurrences(plan.rule, since), None)


def _unlisted(rule: Rule, since: float, until: float) -> list[Due]:
    first = next(occurrences(rule, since), None)
    if first is None or first > until:
        return []
    note = f"no scheduler ran until {shown(until, rule.zone)}; slots before that are not listed one by one"
    return [Due(first, "missed", "unattended", note)]


def _judged(plan: Plan, times: list[float], now: float, *, more: bool) -> list[Due]:
    wanted = _wanted(plan, times, now, more=more)
    left = plan.runs_left
    slots: list[Due] = []
    for due_at in times:
        if left is not None and left <= 0:
            break
        if plan.paused_at is not None and due_at >= plan.paused_at:
            slots.append(Due(due_at, "skipped", "paused", "the schedule was paused"))
        elif due_at in wanted:
            slots.append(Due(due_at, "run"))
            left = None if left is None else left - 1
        else:
            slots.append(_missed(plan.options, due_at, now))
    return slots


def _wanted(plan: Plan, times: list[float], now: float, *, more: bool) -> set[float]:
    """Those of the slots that are to run."""
    if more:
        return set()
    options = plan.options
    able = [due for due in times if plan.paused_at is None or due < plan.paused_at]
    if options.catch_up == "none":
        return {due for due in able if now - due < ON_TIME_S}
    able = [due for due in able if now - due <= max(options.catch_up_window_s, ON_TIME_S)]
    return set(able[-1:] if options.catch_up == "latest" else able[-options.catch_up_cap :])


def _missed(options: Options, due_at: float, now: float) -> Due:
    late = f"no scheduler decided for {duration(max(1, round((now - due_at) / 60)) * 60)}"
    if options.catch_up == "none":
        return Due(due_at, "missed", "late", f"{late}, and this schedule does not catch up")
    if now - due_at > max(options.catch_up_window_s, ON_TIME_S):
        window = duration(options.catch_up_window_s)
        return Due(due_at, "missed", "late", f"{late}, longer than the catch-up window of {window}")
    if options.catch_up == "latest":
        return Due(due_at, "missed", "superseded", f"{late}, and a later slot runs in its place")
    return Due(due_at, "missed", "over_cap", f"{late}, and more than {options.catch_up_cap} newer slots are caught up")
