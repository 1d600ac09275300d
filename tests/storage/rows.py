"""Rows that tests begin with."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, insert, select

from storage.tables import Call, Job, JobCounters, Query

STATUSES = ("waiting", "running", "done", "degraded", "failed", "cancelled", "expired")


def add_job(conn: Connection, job_id: str = "job_1", *, queries: int = 0, **columns: Any) -> list[int]:
    """A job with waiting queries and right counters; the ids of the queries."""
    values = {
        "model": "scripted",
        "policy": {},
        "policy_digest": "d",
        "created_at": 0.0,
        "status": "running",
        **columns,
    }
    conn.execute(insert(Job.__table__).values(id=job_id, project_id="default", **values))
    conn.execute(insert(JobCounters.__table__).values(job_id=job_id, total=queries, waiting=queries))
    rows = [
        {"job_id": job_id, "line": n, "custom_id": f"q{n}", "body": {}, "created_at": 0.0}
        for n in range(1, queries + 1)
    ]
    if rows:
        conn.execute(insert(Query.__table__), rows)
    ids = select(Query.__table__.c.id).where(Query.__table__.c.job_id == job_id).order_by(Query.__table__.c.line)
    return list(conn.scalars(ids))


def add_calls(conn: Connection, job_id: str, query_id: int, count: int) -> list[int]:
    """Queued calls of a query; their ids."""
    fixed = {"kind": "generate", "stage": "SUMMARY", "round": 0, "model": "scripted", "request": {}, "sent_at": 0.0}
    rows = [{"query_id": query_id, "job_id": job_id, "key": f"k{n}", **fixed} for n in range(count)]
    conn.execute(insert(Call.__table__), rows)
    return list(conn.scalars(select(Call.__table__.c.id).where(Call.__table__.c.query_id == query_id)))


def counted(conn: Connection, job_id: str = "job_1") -> dict[str, int]:
    """The counters of the states."""
    counters = JobCounters.__table__
    row = conn.execute(select(*(counters.c[name] for name in STATUSES)).where(counters.c.job_id == job_id)).one()
    return dict(row._mapping)


def recounted(conn: Connection, job_id: str = "job_1") -> dict[str, int]:
    """The same, counted from the rows."""
    queries = Query.__table__
    statement = select(queries.c.status, func.count()).where(queries.c.job_id == job_id).group_by(queries.c.status)
    return {**dict.fromkeys(STATUSES, 0), **{row[0]: row[1] for row in conn.execute(statement)}}
