"""Rows of schedules: which are to be decided, and moving their cursor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from storage.portable import any_of
from storage.tables import Schedule

_SCHEDULES = Schedule.__table__


def create(conn: Connection, values: Mapping[str, Any]) -> None:
    """Insert a schedule; `values` are its columns. Raises IntegrityError when the project has the name already."""
    conn.execute(insert(_SCHEDULES).values(values))


def get(conn: Connection, schedule_id: str) -> Row[Any] | None:
    """One schedule by id."""
    return conn.execute(select(_SCHEDULES).where(_SCHEDULES.c.id == schedule_id)).one_or_none()


def named(conn: Connection, project_id: str, name: str) -> Row[Any] | None:
    """One schedule of a project by name."""
    where = (_SCHEDULES.c.project_id == project_id, _SCHEDULES.c.name == name)
    return conn.execute(select(_SCHEDULES).where(*where)).one_or_none()


def list_page(conn: Connection, project_id: str, *, after: str | None, limit: int) -> Sequence[Row[Any]]:
    """Schedules of a project by name, `limit + 1` at most, after the name `after`."""
    statement = select(_SCHEDULES).where(_SCHEDULES.c.project_id == project_id)
    if after is not None:
        statement = statement.where(_SCHEDULES.c.name > after)
    return conn.execute(statement.order_by(_SCHEDULES.c.name).limit(limit + 1)).all()


def all_after(conn: Connection, schedule_id: str, count: int) -> Sequence[Row[Any]]:
    """Up to `count` schedules of all projects by id, after one."""
    statement = select(_SCHEDULES).where(_SCHEDULES.c.id > schedule_id)
    return conn.execute(statement.order_by(_SCHEDULES.c.id).limit(count)).all()


def due(conn: Connection, now: float, count: int) -> list[str]:
    """Ids of up to `count` schedules with a slot that nobody decided yet, longest waiting first."""
    statement = select(_SCHEDULES.c.id).where(_SCHEDULES.c.next_at <= now).order_by(_SCHEDULES.c.next_at).limit(count)
    return list(conn.scalars(statement))


def lock(conn: Connection, schedule_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """The schedules, their rows locked in id order until the transaction ends: one decides at a time."""
    statement = select(_SCHEDULES).where(any_of(_SCHEDULES.c.id, sorted(schedule_ids)))
    return conn.execute(statement.order_by(_SCHEDULES.c.id).with_for_update()).all()


_MOVE_CURSOR = (
    update(_SCHEDULES)
    .where(_SCHEDULES.c.id == bindparam("row_id"))
    .values(cursor_at=bindparam("to"), next_at=bindparam("then"), runs=_SCHEDULES.c.runs + bindparam("more_runs"))
)


@dataclass(frozen=True, slots=True)
class CursorMove:
    """Up to where slots of a schedule are decided, which comes next, and how many of them are to run."""

    schedule_id: str
    cursor_at: float
    next_at: float | None
    runs: int


def move_cursors(conn: Connection, moves: Sequence[CursorMove]) -> None:
    """Note up to where slots are decided."""
    values = [
        {"row_id": move.schedule_id, "to": move.cursor_at, "then": move.next_at, "more_runs": move.runs}
        for move in moves
    ]
    if values:
        conn.execute(_MOVE_CURSOR, values)


def kept_in(conn: Connection, project_id: str, file: str) -> Sequence[Row[Any]]:
    """Schedules of a project that a definition file keeps, by name."""
    where = (_SCHEDULES.c.project_id == project_id, _SCHEDULES.c.managed_by == file)
    return conn.execute(select(_SCHEDULES).where(*where).order_by(_SCHEDULES.c.name)).all()


def change(conn: Connection, schedule_id: str, values: Mapping[str, Any], now: float) -> None:
    """Set columns of a schedule."""
    conn.execute(update(_SCHEDULES).where(_SCHEDULES.c.id == schedule_id).values(**values, updated_at=now))


def count_failure(conn: Connection, schedule_id: str, *, failed: bool) -> int:
    """Count a failed run, or begin anew after one that went well; failed runs in a row since then."""
    failures = _SCHEDULES.c.failures + 1 if failed else 0
    statement = update(_SCHEDULES).where(_SCHEDULES.c.id == schedule_id).values(failures=failures)
    return int(conn.execute(statement.returning(_SCHEDULES.c.failures)).scalar_one())


def remove(conn: Connection, schedule_id: str) -> None:
    """Delete a schedule and its slots; the jobs that they made stay."""
    conn.execute(delete(_SCHEDULES).where(_SCHEDULES.c.id == schedule_id))
