"""The tick: what `slots_due` decides is written, slots and cursor in one transaction.

Any number of schedulers may tick. A schedule's row is locked while its slots are decided, the cursor moves in
the same transaction, and slots are unique: nothing is decided twice and nothing is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import structlog
from sqlalchemy import Connection

from orchestrator.schedules.alerts import alert
from orchestrator.schedules.due import Decision, Due, Plan, next_due, slots_due
from orchestrator.schedules.occurrences import begins_at
from orchestrator.schedules.overlap import Placing, place
from orchestrator.schedules.records import plan_of
from reasoning.errors import BadInput
from storage import jobs, schedules, slots, transitions
from storage.database import Database

log = structlog.get_logger()

AT_ONCE = 200
"""Schedules decided in one transaction."""


def tick(db: Database, now: float) -> int:
    """Decide every slot that is due at `now`; how many schedules had one."""
    count = 0
    while True:
        with db.read() as conn:
            due = schedules.due(conn, now, AT_ONCE)
        if not due:
            return count
        with db.write() as conn:
            rows = schedules.lock(conn, due)
            decide(conn, [row for row in rows if row.next_at is not None and row.next_at <= now], now)
        count += len(due)


def decide(conn: Connection, rows: Sequence[Any], now: float) -> None:
    """Write slots of locked schedules up to `now`. With very many of them some are left for another call."""
    counts = slots.open_counts(conn, [row.id for row in rows])
    written: list[dict[str, Any]] = []
    moves: list[schedules.CursorMove] = []
    for row in rows:
        try:
            plan = plan_of(row)
        except BadInput as error:
            _stop(conn, row, error, now)
            continue
        decision = slots_due(plan, row.cursor_at, now)
        found, runs = _placed(conn, row, plan, decision.slots, counts.get(row.id, (0, 0)), now)
        left = None if plan.runs_left is None else plan.runs_left - runs
        then = next_due(replace(plan, runs_left=left), decision.cursor_at)
        written += found
        moves.append(schedules.CursorMove(row.id, decision.cursor_at, then, runs))
        _tell(conn, row, plan, decision, now)
    slots.add(conn, written)
    schedules.move_cursors(conn, moves)


def decide_all(conn: Connection, row: Any, now: float) -> Any:
    """Decide everything of a locked schedule up to `now`, so that a change can begin there; the row after that."""
    while row.next_at is not None and row.next_at <= now:
        decide(conn, [row], now)
        row = schedules.lock(conn, [row.id])[0]
    return row


def _placed(
    conn: Connection, row: Any, plan: Plan, due: Sequence[Due], counts: tuple[int, int], now: float
) -> tuple[list[dict[str, Any]], int]:
    """The slots as rows, and how many of them are to run."""
    running, waiting = counts
    rows: list[dict[str, Any]] = []
    runs = 0
    for slot in due:
        placing = Placing("skip", slot.reason, slot.note)
        if slot.action == "run":
            overlap, cap = plan.options.overlap, plan.options.queue_cap
            placing = place(overlap, running=running, waiting=waiting, queue_cap=cap)
        if placing.cancel:
            rows = [{**earlier, **_REPLACED} if earlier["status"] == "pending" else earlier for earlier in rows]
            cancel_open(conn, row.id, now)
            waiting = 0
        values = slot_values(row, plan, slot.due_at, "schedule", now)
        if placing.action == "skip":
            status = "missed" if slot.action == "missed" else "skipped"
            values |= {"status": status, "reason": placing.reason, "note": placing.note, "ended_at": now}
        else:
            runs += 1
            waiting += 1
        rows.append(values)
    return rows, runs


_REPLACED = {"status": "cancelled", "reason": "replaced", "note": "a newer slot was due before this one began"}


def slot_values(row: Any, plan: Plan, due_at: float, origin: str, now: float) -> dict[str, Any]:
    """The columns of a new pending slot."""
    return {
        "schedule_id": row.id,
        "due_at": due_at,
        "origin": origin,
        "attempt": 1,
        "status": "pending",
        "reason": None,
        "note": None,
        "version": row.version,
        "overlap": plan.options.overlap,
        "priority": plan.options.priority,
        "asked_by": None,
        "begins_at": begins_at(plan.rule, row.id, due_at) if origin == "schedule" else due_at,
        "created_at": now,
        "ended_at": None,
    }


def cancel_open(conn: Connection, schedule_id: str, now: float) -> None:
    """Stop what a schedule has under way, backfills aside, for a slot that takes its place."""
    for slot in slots.open_of(conn, schedule_id):
        if slot.origin == "backfill":
            continue
        if slot.status == "pending":
            transitions.move_slot(conn, slot.id, "cancelled", now, _REPLACED["reason"], note=_REPLACED["note"])
        else:
            reason = "a newer slot of its schedule is due"
            if not transitions.move_job(conn, slot.job_id, "cancelling", now, reason=reason, killed_at=now):
                jobs.kill(conn, slot.job_id, now, reason)


def _stop(conn: Connection, row: Any, error: BadInput, now: float) -> None:
    """A schedule that cannot be read would be met again at every tick."""
    log.error("A schedule cannot be read and is paused.", action="schedule.unreadable", schedule_id=row.id)
    values = {"paused_at": now, "paused_by": "stagebeam", "paused_reason": error.message, "next_at": None}
    schedules.change(conn, row.id, values, now)


def _tell(conn: Connection, row: Any, plan: Plan, decision: Decision, now: float) -> None:
    missed = [slot for slot in decision.slots if slot.action == "missed"]
    if missed and plan.options.alerts.url:
        about = {"count": len(missed), "first": missed[0].due_at, "last": missed[-1].due_at, "note": missed[-1].note}
        alert(conn, row, "missed", now, about)
    counts = Counter[str](slot.action for slot in decision.slots)
    log.info("Slots were decided.", action="schedule.decided", schedule_id=row.id, **counts)
