"""What people do to a schedule: pause, resume, run it now. Each is part of one transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from orchestrator.schedules.clock import decide_all, slot_values
from orchestrator.schedules.due import next_due
from orchestrator.schedules.ending import note_act, pause
from orchestrator.schedules.records import plan_of
from reasoning.errors import BadInput
from storage import schedules, slots


def pause_schedule(conn: Connection, row: Any, now: float, actor: str, reason: str) -> None:
    """Let slots from now on be skipped. Runs under way, workers and other schedules go on."""
    locked = schedules.lock(conn, [row.id])[0]
    if locked.paused_at is not None:
        return
    decide_all(conn, locked, now)
    pause(conn, locked, now, actor, reason)


def resume_schedule(conn: Connection, row: Any, now: float, actor: str, reason: str) -> None:
    """Run slots again from now on; those of the pause stay skipped."""
    locked = schedules.lock(conn, [row.id])[0]
    if locked.paused_at is None:
        return
    decided = decide_all(conn, locked, now)
    values = {"paused_at": None, "paused_by": None, "paused_reason": None, "failures": 0}
    start = max(now, decided.cursor_at)
    schedules.change(conn, row.id, {**values, "cursor_at": start}, now)
    schedules.change(conn, row.id, {"next_at": next_due(plan_of(schedules.get(conn, row.id)), start)}, now)
    note_act(conn, row, "schedule.resume", now, actor=actor, reason=reason)


def run_now(conn: Connection, row: Any, now: float, actor: str) -> int:
    """Make a slot for this moment, which moves no other; its id. It waits for what runs, whatever the overlap policy.

    Raises:
        BadInput: one that was asked for by hand waits already (`conflict`).
    """
    locked = schedules.lock(conn, [row.id])[0]
    if any(slot.origin == "manual" and slot.status == "pending" for slot in slots.open_of(conn, row.id)):
        raise BadInput(
            f'a run of "{row.name}" that was asked for by hand waits already; let it begin first', code="conflict"
        )
    plan = plan_of(locked)
    waits = "allow" if plan.options.overlap == "allow" else "queue_all"
    values = slot_values(locked, plan, now, "manual", now) | {"asked_by": actor, "overlap": waits}
    slot_id = slots.add_one(conn, values)
    if slot_id is None:
        raise BadInput("another run was asked for at this very moment; ask again", code="conflict")
    note_act(conn, row, "schedule.run", now, actor=actor, details={"slot_id": slot_id})
    return slot_id
