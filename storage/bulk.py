"""Rows of bulk actions: what is wanted, how far it is, and the queries of the next slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, literal, select, update

from storage.search import Terms, query_conditions
from storage.tables import BulkAction, Job, Query

_ACTIONS = BulkAction.__table__
_JOBS = Job.__table__
_QUERIES = Query.__table__


def add(conn: Connection, **columns: Any) -> int:
    """Insert an action that is yet to be done; its id."""
    return int(conn.execute(insert(_ACTIONS).values(**columns).returning(_ACTIONS.c.id)).scalar_one())


def get(conn: Connection, project_id: str, job_id: str, action_id: int) -> Row[Any] | None:
    """An action on a job of the project."""
    statement = select(_ACTIONS).join(_JOBS, _JOBS.c.id == _ACTIONS.c.job_id)
    where = (_ACTIONS.c.id == action_id, _ACTIONS.c.job_id == job_id, _JOBS.c.project_id == project_id)
    return conn.execute(statement.where(*where)).one_or_none()


def row(conn: Connection, action_id: int) -> Any:
    """An action as it stands, None when its job was removed."""
    return conn.execute(select(_ACTIONS).where(_ACTIONS.c.id == action_id)).one_or_none()


def locked(conn: Connection, action_id: int) -> Any:
    """The same, locked until the transaction ends."""
    return conn.execute(select(_ACTIONS).where(_ACTIONS.c.id == action_id).with_for_update()).one_or_none()


def open_ids(conn: Connection) -> list[int]:
    """Actions that are not over, oldest first."""
    return list(conn.scalars(select(_ACTIONS.c.id).where(_ACTIONS.c.status == "running").order_by(_ACTIONS.c.id)))


def of_job(conn: Connection, job_id: str, most: int, *, running: bool = False) -> Sequence[Row[Any]]:
    """Actions on a job, newest first; with `running` those that are not over."""
    statement = select(_ACTIONS).where(_ACTIONS.c.job_id == job_id)
    if running:
        statement = statement.where(_ACTIONS.c.status == "running")
    return conn.execute(statement.order_by(_ACTIONS.c.id.desc()).limit(most)).all()


def set_counted(conn: Connection, action_id: int, counted: int) -> None:
    """Note how many queries the action found when it began."""
    conn.execute(update(_ACTIONS).where(_ACTIONS.c.id == action_id).values(counted=counted))


def move_on(conn: Connection, action_id: int, line: int, *, changed: int, unchanged: int) -> None:
    """Note a slice that was done, in the transaction that did it."""
    grown = {"changed": _ACTIONS.c.changed + changed, "unchanged": _ACTIONS.c.unchanged + unchanged}
    conn.execute(update(_ACTIONS).where(_ACTIONS.c.id == action_id).values(line=line, **grown))


def count(conn: Connection, job_id: str, terms: Terms, statuses: Sequence[str], most: int | None = None) -> int:
    """How many queries of the job the filter finds in these states; with `most`, counted up to `most + 1`."""
    found = select(literal(1)).select_from(_QUERIES).where(*_where(job_id, terms, statuses))
    found = found if most is None else found.limit(most + 1)
    return int(conn.execute(select(func.count()).select_from(found.subquery())).scalar_one())


def next_slice(
    conn: Connection, job_id: str, terms: Terms, statuses: Sequence[str], *, after_line: int, size: int
) -> Sequence[Any]:
    """Id, line and body of the next queries that the filter finds in these states, in line order."""
    statement = select(_QUERIES.c.id, _QUERIES.c.line, _QUERIES.c.body)
    where = (*_where(job_id, terms, statuses), _QUERIES.c.line > after_line)
    return conn.execute(statement.where(*where).order_by(_QUERIES.c.line).limit(size)).all()


def _where(job_id: str, terms: Terms, statuses: Sequence[str]) -> tuple[ColumnElement[bool], ...]:
    # A line that validation refused has no question: there is nothing to do about it.
    valid = _QUERIES.c.body["question"].as_string().is_not(None)
    return (_QUERIES.c.job_id == job_id, _QUERIES.c.status.in_(statuses), valid, *query_conditions(terms))
