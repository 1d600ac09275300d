"""Query rows by subject: what the orchestrator admits, plans, ends and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from reasoning.records import Query as QueryRecord
from reasoning.records import Turn
from storage.hot import Step, hot, row_list, together
from storage.portable import any_of
from storage.tables import Job, Query

_QUERIES = Query.__table__
_JOBS = Job.__table__


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a job's ended queries in line order; `last_line` is the cursor of the next part."""

    rows: Sequence[Any]
    last_line: int


def to_record(custom_id: str, body: Mapping[str, Any]) -> QueryRecord:
    """The query as the search sees it; the known answer stays outside."""
    return QueryRecord(
        custom_id=custom_id,
        question=body["question"],
        images=tuple(body["images"]),
        choices=tuple(body.get("choices") or ()),
        context=tuple(Turn(turn["role"], turn["text"]) for turn in body.get("context") or ()),
    )


def stages_step(stages: Mapping[int, str]) -> Step:
    """Notes where the searches stand, by query id; for people, nothing is decided by it."""
    return _STAGES, {"rows": row_list([{"id": query_id, "stage": stage} for query_id, stage in stages.items()])}


_STAGES = hot(
    """UPDATE queries SET stage = v.stage FROM json_to_recordset(CAST(:rows AS json)) AS v(id bigint, stage text)
        WHERE queries.id = v.id""",
    """UPDATE queries SET stage = v.value ->> 'stage' FROM json_each(:rows) AS v
        WHERE queries.id = v.value ->> 'id'""",
)


_STALLED = hot(
    """SELECT id FROM queries WHERE status = 'running' AND started_at < :before
        AND id NOT IN (SELECT query_id FROM calls WHERE status IN ('queued', 'leased'))
        AND NOT EXISTS (SELECT 1 FROM calls WHERE query_id = queries.id AND ended_at >= :before) LIMIT :count"""
)
"""Reads what runs and what is open, each by its partial index: joined by query, all calls of each would be read."""


def next_waiting(conn: Connection, job_id: str, count: int) -> Sequence[Any]:
    """Id and body of the first `count` waiting queries of a job in line order."""
    statement = (
        select(_QUERIES.c.id, _QUERIES.c.body)
        .where(_QUERIES.c.job_id == job_id, _QUERIES.c.status == "waiting")
        .order_by(_QUERIES.c.line)
        .limit(count)
    )
    return conn.execute(statement).all()


def in_status(conn: Connection, job_id: str, statuses: Sequence[str], count: int) -> list[int]:
    """Up to `count` queries of a job in one of the states, by line."""
    statement = (
        select(_QUERIES.c.id)
        .where(_QUERIES.c.job_id == job_id, _QUERIES.c.status.in_(statuses))
        .order_by(_QUERIES.c.line)
        .limit(count)
    )
    return list(conn.scalars(statement))


def stalled(conn: Connection, before: float, count: int) -> list[int]:
    """Running queries with which nothing has happened since `before`, and nothing will: none of their calls is open.

    Their wake-up was lost, or whoever should have planned them died.
    """
    (rows,) = together(conn, [(_STALLED, {"before": before, "count": count})])
    return [row.id for row in rows]


def overdue(conn: Connection, now: float, count: int) -> list[int]:
    """Running queries past their deadline."""
    statement = select(_QUERIES.c.id).where(_QUERIES.c.status == "running", _QUERIES.c.deadline_at < now).limit(count)
    return list(conn.scalars(statement))


ENDED = ("done", "degraded", "failed", "cancelled", "expired")


def next_page(conn: Connection, job_id: str, *, after_line: int = 0, size: int = 500) -> Page | None:
    """The first `size` ended queries of a job after a line, in line order; None when there are no more."""
    statement = (
        select(_QUERIES)
        .where(_QUERIES.c.job_id == job_id, _QUERIES.c.line > after_line, _QUERIES.c.status.in_(ENDED))
        .order_by(_QUERIES.c.line)
        .limit(size)
    )
    rows = conn.execute(statement).all()
    return Page(rows, rows[-1].line) if rows else None


def get(conn: Connection, query_id: int) -> Any | None:
    """One query row."""
    return conn.execute(select(_QUERIES).where(_QUERIES.c.id == query_id)).one_or_none()


def find(conn: Connection, job_id: str, custom_id: str) -> Any | None:
    """One query row by its own name."""
    statement = select(_QUERIES).where(_QUERIES.c.job_id == job_id, _QUERIES.c.custom_id == custom_id)
    return conn.execute(statement).one_or_none()


def set_trace_key(conn: Connection, query_ids: Sequence[int], key: str) -> None:
    """Note the object-store part that holds the traces of these queries."""
    conn.execute(update(_QUERIES).where(any_of(_QUERIES.c.id, query_ids)).values(trace_key=key))


BLANK: Mapping[str, Any] = {
    "error": None,
    "started_at": None,
    "ended_at": None,
    "deadline_at": None,
    "degraded_reason": None,
}
"""Columns of a query that starts anew."""


def ended_after(conn: Connection, job_id: str, statuses: Sequence[str], after_line: int, count: int) -> Sequence[Any]:
    """Id, line and body of up to `count` queries in one of the states, in line order after `after_line`."""
    statement = (
        select(_QUERIES.c.id, _QUERIES.c.line, _QUERIES.c.body)
        .where(_QUERIES.c.job_id == job_id, _QUERIES.c.status.in_(statuses), _QUERIES.c.line > after_line)
        .order_by(_QUERIES.c.line)
        .limit(count)
    )
    return conn.execute(statement).all()


def count_retry(conn: Connection, query_ids: Sequence[int]) -> None:
    """Count one more start of these queries."""
    conn.execute(update(_QUERIES).where(any_of(_QUERIES.c.id, query_ids)).values(retries=_QUERIES.c.retries + 1))
