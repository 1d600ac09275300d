"""Backfill: running slots of the past, as new attempts of them. Planned first, capped, and confirmed when many."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal, get_args

from sqlalchemy import Connection

from orchestrator.schedules.clock import slot_values
from orchestrator.schedules.ending import note_act
from orchestrator.schedules.occurrences import occurrences
from orchestrator.schedules.options import Overlap
from orchestrator.schedules.records import plan_of
from reasoning.cost import cost_of
from reasoning.errors import BadInput
from reasoning.policy import Policy
from storage import datasets, schedules, slots

Which = Literal["missing", "failed", "all"]

CAP = 500
"""Slots per request at most."""
CONFIRMED_ABOVE = 50
"""More slots than this need the schedule's name typed."""
PRIORITY = "background"


READS = (
    "every one of these runs reads the dataset as it is now, not as it was at the time of its slot; only an SQL source "
    "that uses :slot can tell the difference"
)
"""What people must know before they ask for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillRequest:
    """What is asked for; times in seconds since the epoch, both included."""

    start: float
    end: float
    which: Which = "missing"
    newest_first: bool = False
    cap: int = CAP
    overlap: Overlap = "queue_all"
    """Of the backfill, whatever that of the schedule is."""
    confirm: str = ""
    """The schedule's name, typed."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One slot of a backfill."""

    due_at: float
    was: str
    """Status of the slot so far, or `absent`."""
    attempt: int


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What a backfill would run."""

    slots: tuple[Planned, ...]
    rows_each: int | None
    """Rows of the newest run; None before the first."""
    cost: dict[str, Any] | None
    """At most: unchanged rows cost nothing."""
    needs_confirmation: bool


def plan_backfill(conn: Connection, row: Any, request: BackfillRequest, now: float) -> BackfillPlan:
    """Which slots of the past the request means. Raises BadInput."""
    _check(request, now)
    rule = plan_of(row).rule
    due = list(takewhile(lambda at: at <= request.end, _up_to(rule, request.start, request.cap + 1)))
    earlier: dict[float, list[Any]] = {}
    for slot in slots.between(conn, row.id, request.start, request.end):
        earlier.setdefault(slot.due_at, []).append(slot)
    wanted = [_planned(at, earlier.get(at, [])) for at in due if _is_wanted(request.which, earlier.get(at, []))]
    if len(due) > request.cap:
        raise BadInput(
            f"there are more than {request.cap} slots between these times; ask for a shorter span",
            code="too_many_slots",
            field="end",
        )
    wanted = wanted[::-1] if request.newest_first else wanted
    rows_each = _rows_of_last_run(conn, row.id)
    cost = _cost(conn, row, rows_each, len(wanted))
    return BackfillPlan(tuple(wanted), rows_each, cost, len(wanted) > CONFIRMED_ABOVE)


def run_backfill(conn: Connection, row: Any, request: BackfillRequest, now: float, actor: str) -> BackfillPlan:
    """Make the slots of a backfill. Raises BadInput, also when many are not confirmed (`confirmation_needed`)."""
    locked = schedules.lock(conn, [row.id])[0]
    plan = plan_backfill(conn, locked, request, now)
    if plan.needs_confirmation and request.confirm != row.name:
        raise BadInput(
            f'this makes {len(plan.slots)} runs; type the name of the schedule, "{row.name}", to confirm',
            code="confirmation_needed",
            field="confirm",
        )
    basis = plan_of(locked)
    common = {"asked_by": actor, "overlap": request.overlap, "priority": PRIORITY, "begins_at": now}
    values = [
        slot_values(locked, basis, planned.due_at, "backfill", now) | common | {"attempt": planned.attempt}
        for planned in plan.slots
    ]
    slots.add(conn, values)
    details = {"count": len(values), "start": request.start, "end": request.end, "which": request.which}
    note_act(conn, row, "schedule.backfill", now, actor=actor, details=details)
    return plan


def _up_to(rule: Any, start: float, count: int) -> Any:
    found = occurrences(rule, start - 1e-3)
    return (at for _, at in zip(range(count), found, strict=False))


def _planned(due_at: float, earlier: list[Any]) -> Planned:
    attempts = [slot.attempt for slot in earlier if slot.origin == "backfill"]
    return Planned(due_at, earlier[-1].status if earlier else "absent", max(attempts, default=0) + 1)


def _is_wanted(which: Which, earlier: list[Any]) -> bool:
    statuses = {slot.status for slot in earlier}
    if statuses & {"pending", "fired"}:
        return False
    if which == "all":
        return True
    if which == "failed":
        return bool(earlier) and earlier[-1].status == "failed"
    return "done" not in statuses and "failed" not in statuses


def _rows_of_last_run(conn: Connection, schedule_id: str) -> int | None:
    done = slots.page(conn, schedule_id, limit=1, status=("done",))
    return int(done[0].report["rows"]) if done and done[0].report else None


def _cost(conn: Connection, row: Any, rows_each: int | None, count: int) -> dict[str, Any] | None:
    dataset = datasets.get(conn, row.dataset_id)
    if rows_each is None or dataset is None:
        return None
    return cost_of(Policy.from_mapping(dataset.policy), rows_each * count).to_json()


def _check(request: BackfillRequest, now: float) -> None:
    if request.end > now:
        raise BadInput(
            "a backfill ends in the past; slots to come run by themselves", code="invalid_value", field="end"
        )
    if request.start > request.end:
        raise BadInput("start lies after end", code="invalid_value", field="start")
    if request.which not in get_args(Which):
        raise BadInput(f"which is one of {', '.join(get_args(Which))}", code="invalid_value", field="which")
    if request.overlap not in ("queue_all", "allow"):
        raise BadInput(
            "a backfill goes one by one (queue_all) or all at once (allow); under any other policy it would run "
            "its first slot only",
            code="contradiction",
            field="overlap",
        )
    if not 1 <= request.cap <= CAP:
        raise BadInput(f"cap is 1 to {CAP}", code="invalid_value", field="cap")
