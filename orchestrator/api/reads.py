"""Lists behind the API: keyset pages, so that the last page of a long list costs what the first does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select

from storage.search import Terms, job_conditions, query_conditions
from storage.tables import Job, JobCounters, Query, Worker

_JOBS = Job.__table__
_COUNTERS = JobCounters.__table__
_QUERIES = Query.__table__
_WORKERS = Worker.__table__

WORKERS_SHOWN_S = 86400.0
"""Workers silent for longer than this are left out of lists."""

_JOB_WITH_COUNTERS = select(_JOBS, *(column for column in _COUNTERS.c if column.name != "job_id")).join(
    _COUNTERS, _COUNTERS.c.job_id == _JOBS.c.id
)


def job(conn: Connection, project_id: str, job_id: str) -> Row[Any] | None:
    """A job of the project with its counters."""
    statement = _JOB_WITH_COUNTERS.where(_JOBS.c.id == job_id, _JOBS.c.project_id == project_id)
    return conn.execute(statement).one_or_none()


def jobs_page(
    conn: Connection,
    project_id: str,
    terms: Terms,
    *,
    limit: int,
    after: str | None,
    status: Sequence[str] = (),
    name: str | None = None,
    model: str | None = None,
) -> Sequence[Row[Any]]:
    """Jobs of the project, newest first, `limit + 1` at most; `after` is the id of the last one seen."""
    statement = _JOB_WITH_COUNTERS.where(_JOBS.c.project_id == project_id, *job_conditions(terms))
    if status:
        statement = statement.where(_JOBS.c.status.in_(status))
    if name:
        statement = statement.where(_JOBS.c.name.contains(name, autoescape=True))
    if model:
        statement = statement.where(_JOBS.c.model == model)
    if after is not None:
        at = select(_JOBS.c.created_at).where(_JOBS.c.id == after).scalar_subquery()
        statement = statement.where(or_(_JOBS.c.created_at < at, and_(_JOBS.c.created_at == at, _JOBS.c.id < after)))
    statement = statement.order_by(_JOBS.c.created_at.desc(), _JOBS.c.id.desc()).limit(limit + 1)
    return conn.execute(statement).all()


def created_with_key(conn: Connection, project_id: str, key: str) -> Row[Any] | None:
    """Id and options of the job that was submitted under an idempotency key."""
    columns: tuple[Any, ...] = (_JOBS.c.id, _JOBS.c.options)
    statement = select(*columns).where(
        _JOBS.c.source == "api", _JOBS.c.source_ref == key, _JOBS.c.project_id == project_id
    )
    return conn.execute(statement.order_by(_JOBS.c.created_at).limit(1)).one_or_none()


def queries_page(
    conn: Connection,
    job_id: str,
    terms: Terms,
    *,
    limit: int,
    after: int,
    status: Sequence[str] = (),
    custom_id: str | None = None,
) -> Sequence[Row[Any]]:
    """Queries of a job in line order, `limit + 1` at most, from the line after `after`."""
    where = (_QUERIES.c.job_id == job_id, _QUERIES.c.line > after, *query_conditions(terms))
    statement = select(_QUERIES).where(*where)
    if status:
        statement = statement.where(_QUERIES.c.status.in_(status))
    if custom_id is not None:
        statement = statement.where(_QUERIES.c.custom_id == custom_id)
    return conn.execute(statement.order_by(_QUERIES.c.line).limit(limit + 1)).all()


def query(conn: Connection, project_id: str, query_id: int) -> Row[Any] | None:
    """A query of the project."""
    statement = select(_QUERIES).join(_JOBS, _JOBS.c.id == _QUERIES.c.job_id)
    return conn.execute(statement.where(_QUERIES.c.id == query_id, _JOBS.c.project_id == project_id)).one_or_none()


def workers_page(conn: Connection, now: float, *, limit: int, after: str | None) -> Sequence[Row[Any]]:
    """Workers heard of lately by id, `limit + 1` at most."""
    statement = select(_WORKERS).where(_WORKERS.c.beat_at > now - WORKERS_SHOWN_S)
    if after is not None:
        statement = statement.where(_WORKERS.c.id > after)
    return conn.execute(statement.order_by(_WORKERS.c.id).limit(limit + 1)).all()


def worker(conn: Connection, worker_id: str) -> Row[Any] | None:
    """One worker."""
    return conn.execute(select(_WORKERS).where(_WORKERS.c.id == worker_id)).one_or_none()


def open_counts(conn: Connection) -> Row[Any]:
    """Waiting and running queries over all jobs that have not ended."""
    sums = (func.coalesce(func.sum(_COUNTERS.c[name]), 0).label(name) for name in ("waiting", "running"))
    statement = select(*sums).join(_JOBS, _JOBS.c.id == _COUNTERS.c.job_id)
    return conn.execute(statement.where(_JOBS.c.status.in_(("validating", "running", "cancelling")))).one()


def jobs_by_status(conn: Connection) -> dict[str, int]:
    """How many jobs are in each state, over all projects."""
    statement = select(_JOBS.c.status, func.count()).group_by(_JOBS.c.status)
    return {row[0]: row[1] for row in conn.execute(statement)}
