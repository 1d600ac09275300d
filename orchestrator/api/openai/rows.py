"""Batches as rows: jobs that came over the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select

from storage.tables import Job, JobCounters, Query

SOURCE = "batch"

_JOBS = Job.__table__
_COUNTERS = JobCounters.__table__
_QUERIES = Query.__table__

_BATCHES = (
    select(_JOBS, *(column for column in _COUNTERS.c if column.name != "job_id"))
    .join(_COUNTERS, _COUNTERS.c.job_id == _JOBS.c.id)
    .where(_JOBS.c.source == SOURCE)
)


def batch(conn: Connection, project_id: str, batch_id: str) -> Row[Any] | None:
    """A batch of the project with its counters."""
    return conn.execute(_BATCHES.where(_JOBS.c.id == batch_id, _JOBS.c.project_id == project_id)).one_or_none()


def batches_page(conn: Connection, project_id: str, *, limit: int, after: str | None) -> Sequence[Row[Any]]:
    """Up to `limit` batches of the project, newest first, after the batch `after`; none when that one is unknown."""
    statement = _BATCHES.where(_JOBS.c.project_id == project_id)
    if after is not None:
        at = conn.execute(
            select(_JOBS.c.created_at).where(_JOBS.c.id == after, _JOBS.c.project_id == project_id)
        ).scalar_one_or_none()
        if at is None:
            return ()
        statement = statement.where(or_(_JOBS.c.created_at < at, and_(_JOBS.c.created_at == at, _JOBS.c.id < after)))
    statement = statement.order_by(_JOBS.c.created_at.desc(), _JOBS.c.id.desc()).limit(limit)
    return conn.execute(statement).all()


def created_with_key(conn: Connection, project_id: str, key: str) -> Row[Any] | None:
    """The batch that was created under an idempotency key."""
    statement = _BATCHES.where(_JOBS.c.source_ref == key, _JOBS.c.project_id == project_id)
    return conn.execute(statement.order_by(_JOBS.c.created_at).limit(1)).one_or_none()


def created_alike(conn: Connection, project_id: str, values: Mapping[str, Any], since: float) -> Row[Any] | None:
    """The newest batch since then over the same file with the same window, metadata and options."""
    statement = _BATCHES.where(
        _JOBS.c.project_id == project_id,
        _JOBS.c.created_at >= since,
        _JOBS.c.input_file_id == values["input_file_id"],
    ).order_by(_JOBS.c.created_at.desc())
    alike = (row for row in conn.execute(statement) if (row.options or {}).get("request") == values["request"])
    return next(alike, None)


def stage_counts(conn: Connection, batch_id: str) -> dict[str, int]:
    """How many running queries stand at each stage; at most as many as the admission window holds."""
    stage = func.coalesce(_QUERIES.c.stage, "starting")
    statement = select(stage, func.count()).where(_QUERIES.c.job_id == batch_id, _QUERIES.c.status == "running")
    return {row[0]: row[1] for row in conn.execute(statement.group_by(stage))}
