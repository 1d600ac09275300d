"""How a slot ends: its state, the count of failures in a row, the alerts, and the pause after too many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from orchestrator.schedules.alerts import alert
from orchestrator.schedules.options import Options
from storage import access, schedules, slots, transitions


def end_slot(
    conn: Connection,
    slot_id: int,
    status: str,
    now: float,
    reason: str,
    note: str,
    **columns: Any,
) -> bool:
    """End a pending or fired slot with everything that follows from it; False when it has ended already."""
    if not transitions.move_slot(conn, slot_id, status, now, reason, note=note, **columns):
        return False
    slot = slots.get(conn, slot_id)
    schedule = schedules.get(conn, slot.schedule_id) if slot is not None else None
    if slot is None or schedule is None or status == "cancelled":
        return True
    failed = status == "failed"
    in_a_row = schedules.count_failure(conn, schedule.id, failed=failed)
    about = {"job_id": slot.job_id, "due_at": slot.due_at, "origin": slot.origin, "reason": reason, "note": note}
    if failed:
        alert(conn, schedule, "failed", now, about, slot_id=slot_id)
    if slot.report and slot.report.get("accuracy_drop"):
        shares = {name: slot.report[name] for name in ("accuracy", "accuracy_before")}
        alert(conn, schedule, "accuracy_drop", now, {**about, **shares}, slot_id=slot_id)
    most = Options.from_mapping(schedule.options).pause_after_failures
    if failed and most is not None and in_a_row >= most and schedule.paused_at is None:
        pause(conn, schedule, now, "stagebeam", f"{in_a_row} runs in a row failed; the last one: {note}")
        alert(conn, schedule, "paused", now, {**about, "failures": in_a_row}, slot_id=slot_id)
    return True


def pause(conn: Connection, schedule: Any, now: float, actor: str, reason: str) -> None:
    """Pause a schedule: slots from now on are skipped, and those of its rule that still wait are too."""
    schedules.change(conn, schedule.id, {"paused_at": now, "paused_by": actor, "paused_reason": reason}, now)
    for slot in slots.open_of(conn, schedule.id):
        if slot.status == "pending" and slot.origin == "schedule":
            note = "the schedule was paused before this slot began"
            transitions.move_slot(conn, slot.id, "skipped", now, "paused", note=note)
    note_act(conn, schedule, "schedule.pause", now, actor=actor, reason=reason)


def note_act(
    conn: Connection,
    schedule: Any,
    action: str,
    now: float,
    *,
    actor: str,
    reason: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Note in the change log of a schedule who did what to it, and why."""
    access.note(
        conn,
        project_id=schedule.project_id,
        actor=actor,
        action=action,
        subject=schedule.id,
        now=now,
        reason=reason,
        details=details,
    )
