"""What pages ask of jobs, queues and workers: bounded reads that never count queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, func, literal, or_, select, union_all

from storage.search import Terms, job_conditions, needs_attention
from storage.tables import ApiKey, AuditEntry, Call, File, Job, JobCounters, Query, QueueControl, Worker
from storage.transitions import JOB_ENDED, JOB_MOVES

_JOBS = Job.__table__
_COUNTERS = JobCounters.__table__
_QUERIES = Query.__table__
_CALLS = Call.__table__
_WORKERS = Worker.__table__
_CONTROLS = QueueControl.__table__
_AUDIT = AuditEntry.__table__
_KEYS = ApiKey.__table__

ACTIVE_JOBS = 200
"""Jobs looked at for the oldest waiting query; more at once are no more than a longer queue."""
ATTENTION_S = 7 * 86400.0
ATTENTION_JOBS = 12
WORKERS_SHOWN_S = 86400.0
"""Workers silent for longer than this are history."""
OPEN_CALLS = ("queued", "leased")
FAILED_QUERIES = ("failed", "expired")

_NOT_ENDED = sorted(JOB_MOVES.keys() - JOB_ENDED)

JOB_WITH_COUNTERS = select(_JOBS, *(column for column in _COUNTERS.c if column.name != "job_id")).join(
    _COUNTERS, _COUNTERS.c.job_id == _JOBS.c.id
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An active job with the time since which its first waiting query waits (None without one)."""

    job_id: str
    name: str
    model: str
    status: str
    paused: bool
    waiting: int
    running: int
    since: float | None


def active(conn: Connection, project_id: str) -> list[Waiting]:
    """The project's jobs that have not ended, oldest first."""
    first = (
        select(_QUERIES.c.created_at)
        .where(_QUERIES.c.job_id == _JOBS.c.id, _QUERIES.c.status == "waiting")
        .order_by(_QUERIES.c.line)
        .limit(1)
        .scalar_subquery()
    )
    columns = (_JOBS.c.id, _JOBS.c.name, _JOBS.c.model, _JOBS.c.status, _JOBS.c.paused_at.is_not(None))
    statement = (
        select(*columns, _COUNTERS.c.waiting, _COUNTERS.c.running, first)
        .join(_COUNTERS, _COUNTERS.c.job_id == _JOBS.c.id)
        .where(_JOBS.c.status.in_(_NOT_ENDED), _JOBS.c.project_id == project_id)
        .order_by(_JOBS.c.created_at)
        .limit(ACTIVE_JOBS)
    )
    return [Waiting(*row) for row in conn.execute(statement)]


def attention(conn: Connection, project_id: str, now: float) -> Sequence[Row[Any]]:
    """Jobs that somebody should look at, newest first, with their counters."""
    recent = or_(_JOBS.c.ended_at.is_(None), _JOBS.c.ended_at > now - ATTENTION_S)
    statement = JOB_WITH_COUNTERS.where(_JOBS.c.project_id == project_id, recent, needs_attention())
    return conn.execute(statement.order_by(_JOBS.c.created_at.desc()).limit(ATTENTION_JOBS)).all()


def jobs_by_status(conn: Connection, project_id: str) -> dict[str, int]:
    """How many jobs are in each state."""
    statement = select(_JOBS.c.status, func.count()).where(_JOBS.c.project_id == project_id)
    return {row[0]: row[1] for row in conn.execute(statement.group_by(_JOBS.c.status))}


def open_calls(conn: Connection) -> Sequence[Row[Any]]:
    """Calls not ended by model, stage, kind and state: `calls`, how many of them `again`, and `since` when.

    A call is tried again when its lease was lost or given back before; `since` is when the oldest was sent or started.
    """
    before = _CALLS.c.attempts - case((_CALLS.c.status == "leased", 1), else_=0)
    again = func.sum(case((before > 0, 1), else_=0))
    since = func.min(func.coalesce(_CALLS.c.started_at, _CALLS.c.sent_at))
    columns = (_CALLS.c.model, _CALLS.c.stage, _CALLS.c.kind, _CALLS.c.status)
    statement = select(*columns, func.count().label("calls"), again.label("again"), since.label("since"))
    return conn.execute(statement.where(_CALLS.c.status.in_(OPEN_CALLS)).group_by(*columns)).all()


def workers(conn: Connection, now: float) -> Sequence[Row[Any]]:
    """Workers heard of in the last day, by model and id."""
    statement = select(_WORKERS).where(_WORKERS.c.beat_at > now - WORKERS_SHOWN_S)
    return conn.execute(statement.order_by(_WORKERS.c.model, _WORKERS.c.id)).all()


def workers_named(conn: Connection, ids: Sequence[str]) -> dict[str, Row[Any]]:
    """Heartbeat rows by id."""
    if not ids:
        return {}
    return {row.id: row for row in conn.execute(select(_WORKERS).where(_WORKERS.c.id.in_(ids)))}


def controls(conn: Connection) -> Sequence[Row[Any]]:
    """Queues that somebody paused, with reason, actor and time."""
    return conn.execute(select(_CONTROLS).where(_CONTROLS.c.paused_at.is_not(None)).order_by(_CONTROLS.c.model)).all()


def jobs_page(
    conn: Connection, project_id: str, terms: Terms, *, limit: int, after: str | None = None, before: str | None = None
) -> Sequence[Row[Any]]:
    """Jobs newest first with their counters, `limit + 1` at most; `after` and `before` are ids of jobs.

    With `before` the rows come oldest first: the caller turns them round.
    """
    statement = JOB_WITH_COUNTERS.where(_JOBS.c.project_id == project_id, *job_conditions(terms))
    created, key = _JOBS.c.created_at, _JOBS.c.id
    for cursor, newer in ((after, False), (before, True)):
        if cursor is not None:
            at = select(created).where(key == cursor).scalar_subquery()
            beyond = (created > at, key > cursor) if newer else (created < at, key < cursor)
            statement = statement.where(or_(beyond[0], and_(created == at, beyond[1])))
    order = (created, key) if before is not None else (created.desc(), key.desc())
    return conn.execute(statement.order_by(*order).limit(limit + 1)).all()


def count_jobs(conn: Connection, project_id: str, terms: Terms, most: int = 10_000) -> int:
    """How many jobs the filter finds, counted up to `most + 1`."""
    found = (
        select(literal(1))
        .select_from(_JOBS)
        .join(_COUNTERS, _COUNTERS.c.job_id == _JOBS.c.id)
        .where(_JOBS.c.project_id == project_id, *job_conditions(terms))
        .limit(most + 1)
        .subquery()
    )
    return int(conn.execute(select(func.count()).select_from(found)).scalar_one())


def job(conn: Connection, project_id: str, job_id: str) -> Row[Any] | None:
    """A job of the project with its counters."""
    statement = JOB_WITH_COUNTERS.where(_JOBS.c.id == job_id, _JOBS.c.project_id == project_id)
    return conn.execute(statement).one_or_none()


def models(conn: Connection, project_id: str, now: float) -> list[str]:
    """Names that a job may ask for: what workers of the last day serve, then what earlier jobs used."""
    live = select(_WORKERS.c.model.label("model"), literal(0).label("rank")).where(
        _WORKERS.c.beat_at > now - WORKERS_SHOWN_S
    )
    recent = (
        select(_JOBS.c.model)
        .where(_JOBS.c.project_id == project_id)
        .order_by(_JOBS.c.created_at.desc())
        .limit(500)
        .subquery()
    )
    both = union_all(live, select(recent.c.model, literal(1).label("rank"))).subquery()
    statement = select(both.c.model, func.min(both.c.rank)).group_by(both.c.model)
    return [row[0] for row in sorted(conn.execute(statement), key=lambda row: (row[1], row[0]))]


def failures(conn: Connection, job_ids: Sequence[str], most: int) -> Sequence[Row[Any]]:
    """Id, job, line, name and error of failed queries: up to `most` of each job and state, in line order."""
    # One look into the index per job and state: ordered by it, none of them reads more than it returns.
    parts = [_failed_of(job_id, status, most).subquery() for job_id in job_ids for status in FAILED_QUERIES]
    return conn.execute(union_all(*(select(part) for part in parts))).all() if parts else ()


def _failed_of(job_id: str, status: str, most: int) -> Select[Any]:
    columns = (_QUERIES.c.id, _QUERIES.c.job_id, _QUERIES.c.line, _QUERIES.c.custom_id, _QUERIES.c.error)
    where = (_QUERIES.c.job_id == job_id, _QUERIES.c.status == status)
    return select(*columns).where(*where).order_by(_QUERIES.c.line).limit(most)


def audit_page(
    conn: Connection, project_id: str, *, limit: int, before_id: int | None = None, subject: str | None = None
) -> Sequence[Row[Any]]:
    """Audit entries of the project, newest first, `limit + 1` at most, older than `before_id`."""
    statement = select(_AUDIT).where(or_(_AUDIT.c.project_id == project_id, _AUDIT.c.project_id.is_(None)))
    if before_id is not None:
        statement = statement.where(_AUDIT.c.id < before_id)
    if subject is not None:
        statement = statement.where(_AUDIT.c.subject == subject)
    return conn.execute(statement.order_by(_AUDIT.c.id.desc()).limit(limit + 1)).all()


def submitters(conn: Connection, rows: Sequence[Any]) -> dict[str, str]:
    """Who submitted each of the jobs, by its id: the name of a key, or `local`; a schedule's runs are left out."""
    # The entry is of the moment the job was made, which is looked up faster than all that was ever done to it.
    made = (
        _AUDIT.c.at.in_([row.created_at for row in rows]),
        _AUDIT.c.subject.in_([row.id for row in rows]),
        _AUDIT.c.action.in_(("job.submit", "job.clone")),
    )
    name = func.coalesce(func.nullif(_KEYS.c.name, ""), _AUDIT.c.actor)
    statement = select(_AUDIT.c.subject, name).join(_KEYS, _KEYS.c.id == _AUDIT.c.actor, isouter=True).where(*made)
    return {row[0]: row[1] for row in conn.execute(statement)} if rows else {}


@dataclass(frozen=True, slots=True)
class EngineSeconds:
    """What a query of earlier jobs took, in seconds of engine time."""

    low: float
    high: float
    jobs: int
    same_policy: bool


def engine_seconds(conn: Connection, project_id: str, model: str, policy_digest: str) -> EngineSeconds | None:
    """From the latest jobs of the model, those of the same policy where there are any; None without a job."""
    ended = _COUNTERS.c.done + _COUNTERS.c.degraded
    statement = (
        select(_JOBS.c.policy_digest, (_COUNTERS.c.engine_seconds / ended).label("each"))
        .join(_COUNTERS, _COUNTERS.c.job_id == _JOBS.c.id)
        .where(_JOBS.c.project_id == project_id, _JOBS.c.model == model, ended > 0, _COUNTERS.c.engine_seconds > 0)
        .order_by(_JOBS.c.created_at.desc())
        .limit(20)
    )
    rows = conn.execute(statement).all()
    same = [row.each for row in rows if row.policy_digest == policy_digest]
    each = same or [row.each for row in rows]
    return EngineSeconds(min(each), max(each), len(each), bool(same)) if each else None


def same_work(conn: Connection, project_id: str, sha256: str, model: str, policy_digest: str) -> Row[Any] | None:
    """The newest job over a file of the same content, with the same model and policy, that did not fail."""
    files = File.__table__
    columns: tuple[Any, ...] = (_JOBS.c.id, _JOBS.c.name, _JOBS.c.created_at)
    statement = (
        select(*columns)
        .join(files, files.c.id == _JOBS.c.input_file_id)
        .where(files.c.project_id == project_id, files.c.sha256 == sha256)
        .where(_JOBS.c.model == model, _JOBS.c.policy_digest == policy_digest, _JOBS.c.status != "failed")
        .order_by(_JOBS.c.created_at.desc())
        .limit(1)
    )
    return conn.execute(statement).one_or_none()
