"""One action on all queries of a job that a filter finds, in bounded steps, each a transaction of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, delete, func, select

from orchestrator.actions import RETRYABLE, refuse_removed
from reasoning.errors import BadInput
from reasoning.records import CallStatus
from storage import jobs, planning, queries, transitions
from storage.causes import caused
from storage.database import Database
from storage.portable import any_of
from storage.search import Terms, query_conditions
from storage.tables import Call, Query

Action = Literal["retry", "cancel"]
STATUSES: dict[Action, tuple[str, ...]] = {"retry": RETRYABLE, "cancel": ("waiting", "running")}
"""Queries that an action applies to; others in the filter are left alone."""
STEP = 1_000
MOST = 10_000
"""Queries per request; what is left is said, and the action can be repeated."""

_QUERIES = Query.__table__
_CALLS = Call.__table__


@dataclass(frozen=True, slots=True)
class Done:
    """What a bulk action did."""

    changed: int
    more: bool
    """There were more than `MOST`."""


def count(conn: Connection, job_id: str, terms: Terms, action: Action) -> int:
    """How many queries the action would change, counted up to `MOST + 1`."""
    found = select(_QUERIES.c.id).where(*_where(job_id, terms, action)).limit(MOST + 1).subquery()
    return int(conn.execute(select(func.count()).select_from(found)).scalar_one())


def run(db: Database, job_id: str, terms: Terms, action: Action, now: float, reason: str) -> Done:
    """Retry or cancel what the filter finds.

    Raises:
        BadInput: no such job, one that failed validation, or nothing to do (`nothing_to_retry`).
    """
    changed, line = 0, 0
    while changed < MOST:
        with db.write() as conn:
            job = jobs.locked(conn, job_id)
            if job is None:
                raise BadInput(f"there is no job {job_id}", code="not_found", field="job")
            rows = conn.execute(_found(job_id, terms, action, line).limit(STEP)).all()
            if rows:
                line = rows[-1].line
                ids = [row.id for row in rows if action == "cancel" or "question" in row.body]
                changed += _retry(conn, job, ids, now, reason) if action == "retry" else _cancel(conn, job, ids, now)
        if len(rows) < STEP:
            break
    if not changed:
        raise BadInput(f"no query of job {job_id} that matches can be changed so", code="nothing_to_retry")
    return Done(changed, changed >= MOST)


def _found(job_id: str, terms: Terms, action: Action, after_line: int) -> Any:
    columns = select(_QUERIES.c.id, _QUERIES.c.line, _QUERIES.c.body)
    where = _where(job_id, terms, action)
    return columns.where(*where, _QUERIES.c.line > after_line).order_by(_QUERIES.c.line)


def _where(job_id: str, terms: Terms, action: Action) -> tuple[ColumnElement[bool], ...]:
    return (_QUERIES.c.job_id == job_id, _QUERIES.c.status.in_(STATUSES[action]), *query_conditions(terms))


def _retry(conn: Connection, job: Any, ids: list[int], now: float, reason: str) -> int:
    """Put queries back; a job that had ended runs again."""
    refuse_removed(job)
    if job.status in ("completed", "cancelled", "expired"):
        transitions.move_job(conn, job.id, "running", now, reason=reason, expires_at=None)
    elif job.status != "running":
        raise BadInput(f"job {job.id} is {job.status}; retry when it has ended", code="job_running")
    conn.execute(delete(_CALLS).where(any_of(_CALLS.c.query_id, ids), _CALLS.c.status != CallStatus.DONE.value))
    moves = [transitions.QueryMove(query_id, job.id, "waiting", queries.BLANK) for query_id in ids]
    moved = transitions.move_queries(conn, moves, now) if moves else set()
    queries.count_retry(conn, sorted(moved))
    return len(moved)


def _cancel(conn: Connection, job: Any, ids: list[int], now: float) -> int:
    message = "a person cancelled this query"
    error = caused({"code": "cancelled", "message": message, "stage": None, "attempts": 0, "retryable": True})
    moves = [transitions.QueryMove(query_id, job.id, "cancelled", {"error": error}) for query_id in ids]
    moved = transitions.move_queries(conn, moves, now) if moves else set()
    planning.cancel_open(conn, sorted(moved), now)
    return len(moved)
