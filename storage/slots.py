"""Rows of slots: written with the decision about them, and read by what starts, finishes and shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from storage.portable import any_of, insert_ignore
from storage.tables import Job, Schedule, Slot
from storage.transitions import JOB_ENDED

_SLOTS = Slot.__table__
_SCHEDULES = Schedule.__table__
_JOBS = Job.__table__


def add(conn: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert slots; those that are there already stay as they are. All rows must name the same columns."""
    if rows:
        conn.execute(insert_ignore(_SLOTS, conn), [dict(row) for row in rows])


def add_one(conn: Connection, row: Mapping[str, Any]) -> int | None:
    """Insert one slot and return its id; None when it is there already."""
    return conn.execute(insert_ignore(_SLOTS, conn).values(**row).returning(_SLOTS.c.id)).scalar_one_or_none()


def get(conn: Connection, slot_id: int) -> Row[Any] | None:
    """One slot."""
    return conn.execute(select(_SLOTS).where(_SLOTS.c.id == slot_id)).one_or_none()


def open_of(conn: Connection, schedule_id: str) -> Sequence[Row[Any]]:
    """Slots of a schedule that wait or run, in the order of their making."""
    where = (_SLOTS.c.schedule_id == schedule_id, _SLOTS.c.status.in_(("pending", "fired")))
    return conn.execute(select(_SLOTS).where(*where).order_by(_SLOTS.c.id)).all()


def open_counts(conn: Connection, schedule_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Slots that run and slots that wait, backfills aside, by schedule; schedules without any are left out."""
    statement = (
        select(_SLOTS.c.schedule_id, _SLOTS.c.status, func.count())
        .where(any_of(_SLOTS.c.schedule_id, schedule_ids), _SLOTS.c.status.in_(("pending", "fired")))
        .where(_SLOTS.c.origin != "backfill")
        .group_by(_SLOTS.c.schedule_id, _SLOTS.c.status)
    )
    found: dict[str, tuple[int, int]] = {}
    for schedule_id, status, count in conn.execute(statement):
        running, waiting = found.get(schedule_id, (0, 0))
        found[schedule_id] = (count, waiting) if status == "fired" else (running, count)
    return found


def startable(conn: Connection, now: float, count: int) -> list[int]:
    """Ids of pending slots whose time has come, in the order of their times."""
    where = (_SLOTS.c.status == "pending", _SLOTS.c.begins_at <= now)
    return list(conn.scalars(select(_SLOTS.c.id).where(*where).order_by(_SLOTS.c.begins_at, _SLOTS.c.id).limit(count)))


def finished(conn: Connection, count: int) -> list[int]:
    """Ids of fired slots whose job has ended."""
    statement = (
        select(_SLOTS.c.id)
        .join(_JOBS, _JOBS.c.id == _SLOTS.c.job_id)
        .where(_SLOTS.c.status == "fired", _JOBS.c.status.in_(sorted(JOB_ENDED)))
        .order_by(_SLOTS.c.id)
        .limit(count)
    )
    return list(conn.scalars(statement))


def postpone(conn: Connection, slot_id: int, begins_at: float, reason: str, note: str) -> None:
    """Let a pending slot wait longer, and say why."""
    where = (_SLOTS.c.id == slot_id, _SLOTS.c.status == "pending")
    conn.execute(update(_SLOTS).where(*where).values(begins_at=begins_at, reason=reason, note=note))


def previous_run(conn: Connection, slot: Row[Any]) -> Row[Any] | None:
    """The run before: the newest slot of the schedule with answers that was made before this one."""
    statement = (
        select(_SLOTS)
        .where(_SLOTS.c.schedule_id == slot.schedule_id, _SLOTS.c.status == "done", _SLOTS.c.id < slot.id)
        .order_by(_SLOTS.c.id.desc())
        .limit(1)
    )
    return conn.execute(statement).one_or_none()


def page(
    conn: Connection, schedule_id: str, *, limit: int, before: int | None = None, status: Sequence[str] = ()
) -> Sequence[Row[Any]]:
    """Slots of a schedule, newest first, `limit + 1` at most, made before the slot `before`."""
    statement = select(_SLOTS).where(_SLOTS.c.schedule_id == schedule_id)
    if before is not None:
        statement = statement.where(_SLOTS.c.id < before)
    if status:
        statement = statement.where(_SLOTS.c.status.in_(status))
    return conn.execute(statement.order_by(_SLOTS.c.id.desc()).limit(limit + 1)).all()


def last_of_each(conn: Connection, schedule_ids: Sequence[str], count: int) -> dict[str, list[Row[Any]]]:
    """The last `count` slots of each schedule, oldest first."""
    place = func.row_number().over(partition_by=_SLOTS.c.schedule_id, order_by=_SLOTS.c.id.desc()).label("place")
    where = any_of(_SLOTS.c.schedule_id, schedule_ids)
    ranked = select(*(column for column in _SLOTS.c if column.name != "report"), place).where(where).subquery()
    rows = conn.execute(select(ranked).where(ranked.c.place <= count).order_by(ranked.c.id)).all()
    found: dict[str, list[Row[Any]]] = {}
    for row in rows:
        found.setdefault(row.schedule_id, []).append(row)
    return found


def reports(conn: Connection, slot_ids: Sequence[int]) -> dict[int, dict[str, Any] | None]:
    """Reports by slot."""
    statement = select(_SLOTS.c.id, _SLOTS.c.report).where(any_of(_SLOTS.c.id, slot_ids))
    return {row.id: row.report for row in conn.execute(statement)}


def between(conn: Connection, schedule_id: str, start: float, end: float) -> Sequence[Row[Any]]:
    """Slots of a schedule due from `start` up to and including `end`, in the order of their making."""
    where = (_SLOTS.c.schedule_id == schedule_id, _SLOTS.c.due_at >= start, _SLOTS.c.due_at <= end)
    return conn.execute(select(_SLOTS).where(*where).order_by(_SLOTS.c.id)).all()


def of_jobs(conn: Connection, job_ids: Iterable[str]) -> dict[str, Row[Any]]:
    """Slots by the job that they made."""
    rows = conn.execute(select(_SLOTS).where(any_of(_SLOTS.c.job_id, job_ids))).all()
    return {row.job_id: row for row in rows}
