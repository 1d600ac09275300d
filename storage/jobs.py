"""Job rows by subject: what may be admitted, what it used, and which duty waits on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update

from storage.hot import hot, together
from storage.tables import Job, JobCounters, Query, QueueControl

_JOBS = Job.__table__
_COUNTERS = JobCounters.__table__
_CONTROLS = QueueControl.__table__
_QUERIES = Query.__table__

LATELY_S = 300.0
LATELY_ROWS = 2_000
"""Ended queries that the pace of a model is read from: of the last minutes, and at most so many."""

USAGE_COLUMNS = (
    "candidates",
    "verdicts",
    "prompt_tokens",
    "cached_tokens",
    "kept_tokens",
    "answer_tokens",
    "discarded_tokens",
    "judged_tokens",
    "vision_calls",
    "engine_seconds",
)
"""Counters that grow by a query's usage when it ends."""


@dataclass(frozen=True, slots=True)
class JobLoad:
    """What admission needs to know about a running job."""

    job_id: str
    model: str
    priority: str
    weight: float
    policy: Mapping[str, Any]
    waiting: int
    running: int
    ended: int
    spent_tokens: int
    admitted_tokens: float


def get(conn: Connection, job_id: str) -> Any | None:
    """The job row with its counters."""
    statement = select(_JOBS, *_counters()).join(_COUNTERS, _COUNTERS.c.job_id == _JOBS.c.id)
    return conn.execute(statement.where(_JOBS.c.id == job_id)).one_or_none()


def in_status(conn: Connection, *statuses: str) -> Sequence[Any]:
    """Jobs in one of the states with their counters, oldest first."""
    statement = select(_JOBS, *_counters()).join(_COUNTERS, _COUNTERS.c.job_id == _JOBS.c.id)
    return conn.execute(statement.where(_JOBS.c.status.in_(statuses)).order_by(_JOBS.c.created_at)).all()


_TO_MOVE = hot(
    "SELECT status, id FROM jobs WHERE status IN ('validating', 'finalizing') ORDER BY created_at, id",
)


def to_move(conn: Connection) -> dict[str, list[str]]:
    """Ids of the jobs in `validating` and `finalizing`, oldest first; a state that no job is in is missing."""
    found: dict[str, list[str]] = {}
    (rows,) = together(conn, [(_TO_MOVE, {})])
    for row in rows:
        found.setdefault(row.status, []).append(row.id)
    return found


def locked(conn: Connection, job_id: str) -> Any | None:
    """The job row without its counters, locked until the transaction ends."""
    return conn.execute(select(_JOBS).where(_JOBS.c.id == job_id).with_for_update()).one_or_none()


def kill(conn: Connection, job_id: str, now: float, reason: str) -> None:
    """Note that what still runs of a job in `cancelling` is to be given up."""
    asked = update(_JOBS).where(_JOBS.c.id == job_id, _JOBS.c.status == "cancelling", _JOBS.c.killed_at.is_(None))
    conn.execute(asked.values(killed_at=now, status_reason=reason))


_LOADS = hot(
    """SELECT jobs.id AS job_id, jobs.model, jobs.priority, jobs.weight, jobs.policy, counters.running,
        CASE WHEN jobs.paused_at IS NULL AND jobs.status = 'running' THEN counters.waiting ELSE 0 END AS waiting,
        counters.done + counters.degraded + counters.failed AS ended,
        counters.kept_tokens + counters.discarded_tokens + counters.judged_tokens AS spent_tokens,
        counters.admitted_tokens
        FROM jobs JOIN job_counters AS counters ON counters.job_id = jobs.id
        WHERE jobs.status IN ('running', 'cancelling') AND counters.waiting + counters.running > 0
        ORDER BY jobs.created_at, jobs.id""",
    json=("policy",),
)


def loads(conn: Connection) -> list[JobLoad]:
    """Every job that is not finished, those that are paused or being cancelled only with what still runs."""
    (rows,) = together(conn, [(_LOADS, {})])
    return [JobLoad(**row._asdict()) for row in rows]


@dataclass(frozen=True, slots=True)
class End:
    """A query that ended."""

    job_id: str
    at: float
    tokens: float
    """Generated for it, at least one."""


def ends_lately(conn: Connection, model: str, now: float) -> list[End]:
    """What ended of a model in the last minutes, newest first, bounded."""
    tokens = func.coalesce(_QUERIES.c.usage["generated_tokens"].as_integer(), 0)
    statement = (
        select(_QUERIES.c.job_id, _QUERIES.c.ended_at, tokens)
        .join(_JOBS, _JOBS.c.id == _QUERIES.c.job_id)
        .where(_QUERIES.c.ended_at > now - LATELY_S, _JOBS.c.model == model, _QUERIES.c.status != "cancelled")
        .order_by(_QUERIES.c.ended_at.desc())
        .limit(LATELY_ROWS)
    )
    return [End(job_id, at, max(1.0, float(spent))) for job_id, at, spent in conn.execute(statement)]


def paused_models(conn: Connection) -> set[str]:
    """Models whose queue somebody paused."""
    return set(conn.scalars(select(_CONTROLS.c.model).where(_CONTROLS.c.paused_at.is_not(None))))


def charge(conn: Connection, job_id: str, admitted_tokens: float) -> None:
    """Set the virtual clock of a job after an admission."""
    conn.execute(update(_COUNTERS).where(_COUNTERS.c.job_id == job_id).values(admitted_tokens=admitted_tokens))


def to_fold(conn: Connection, before: float, count: int) -> list[str]:
    """Jobs that ended before then and still have their calls as rows."""
    old = _JOBS.c.ended_at < before, _JOBS.c.folded_at.is_(None)
    return list(conn.scalars(select(_JOBS.c.id).where(*old).order_by(_JOBS.c.ended_at).limit(count)))


def set_folded(conn: Connection, job_id: str, now: float) -> None:
    """Note that the calls of a job are rows no longer."""
    conn.execute(update(_JOBS).where(_JOBS.c.id == job_id).values(folded_at=now))


def count_by_status(conn: Connection, project_id: str) -> dict[str, int]:
    """How many jobs of a project are in each state."""
    statement = select(_JOBS.c.status, func.count()).where(_JOBS.c.project_id == project_id).group_by(_JOBS.c.status)
    return {row[0]: row[1] for row in conn.execute(statement)}


def _counters() -> list[Any]:
    return [column for column in _COUNTERS.c if column.name != "job_id"]
