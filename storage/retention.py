"""Rows of runs that a schedule no longer keeps: which there are, which of them later runs reuse, removing the rest.

A query whose result later runs took over stays, with its trace, for as long as one of those runs is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, or_, select, update
from sqlalchemy.orm import aliased

from storage.portable import any_of
from storage.tables import Job, JobCounters, Query, Slot, StoredResult
from storage.transitions import JOB_ENDED

_SLOTS = Slot.__table__
_JOBS = Job.__table__
_COUNTERS = JobCounters.__table__
_QUERIES = Query.__table__
_RESULTS = StoredResult.__table__

_RAN = ("done", "failed", "cancelled")
_UNOWNED = ~exists().where(_SLOTS.c.job_id == _JOBS.c.id)
"""Of jobs: their slot went with its schedule. Jobs that are marked were all made by one."""
_KEPT = and_(_SLOTS.c.removed_at.is_(None), _SLOTS.c.job_id.is_not(None))


def beyond(
    conn: Connection, schedule_id: str, *, before: float | None, newest: int | None, count: int
) -> Sequence[Row[Any]]:
    """Up to `count` ended runs that are whole and need not be, oldest first: they ended before a time, or are older
    than the newest so many that went well.

    A run that another one is or will be compared with is never among them.
    """
    mine = (_SLOTS.c.schedule_id == schedule_id, _KEPT)
    done = select(_SLOTS.c.id).where(*mine, _SLOTS.c.status == "done").order_by(_SLOTS.c.id.desc())
    too_old = [] if before is None else [_SLOTS.c.ended_at < before]
    if newest is not None:
        oldest_kept = conn.execute(done.offset(newest - 1).limit(1)).scalar_one_or_none()
        too_old += [] if oldest_kept is None else [_SLOTS.c.id < oldest_kept]
    compared = set(conn.scalars(done.limit(1)))
    running = conn.scalars(select(_SLOTS.c.id).where(*mine, _SLOTS.c.status == "fired")).all()
    for slot_id in running:
        compared |= set(conn.scalars(done.where(_SLOTS.c.id < slot_id).limit(1)))
    statement = (
        select(_SLOTS)
        .join(_JOBS, _JOBS.c.id == _SLOTS.c.job_id)
        .where(_JOBS.c.status.in_(sorted(JOB_ENDED)))  # somebody may have started a job of long ago again
        .where(*mine, _SLOTS.c.status.in_(_RAN), or_(False, *too_old), _SLOTS.c.id.not_in(compared))
        .order_by(_SLOTS.c.id)
        .limit(count)
    )
    return conn.execute(statement).all()


def mark(conn: Connection, slot_id: int, job_id: str, now: float) -> Row[Any] | None:
    """Note that the results of a run are gone and that the rows of its job are to go.

    Returns the job, or None when it runs again or was marked before.
    """
    total = select(_COUNTERS.c.total).where(_COUNTERS.c.job_id == job_id).scalar_subquery()
    ended = (_JOBS.c.id == job_id, _JOBS.c.rows_kept.is_(None), _JOBS.c.status.in_(sorted(JOB_ENDED)))
    marked = conn.execute(update(_JOBS).where(*ended).values(rows_kept=total).returning(*_JOBS.c)).one_or_none()
    if marked is not None:
        conn.execute(update(_SLOTS).where(_SLOTS.c.id == slot_id).values(removed_at=now, output_prefix=None))
    return marked


def mark_job(conn: Connection, job_id: str, reason: str) -> bool:
    """Note that the rows of an ended job are to go, and why; False when they are marked already."""
    total = select(_COUNTERS.c.total).where(_COUNTERS.c.job_id == job_id).scalar_subquery()
    ended = (_JOBS.c.id == job_id, _JOBS.c.rows_kept.is_(None), _JOBS.c.status.in_(sorted(JOB_ENDED)))
    marked = update(_JOBS).where(*ended).values(rows_kept=total, status_reason=reason, output_file_id=None)
    return conn.execute(marked.values(error_file_id=None).returning(_JOBS.c.id)).first() is not None


def reads_file(conn: Connection, file_id: str) -> bool:
    """Whether a job whose rows are all there, or are still being read, has this file for its input."""
    statement = select(_JOBS.c.id).where(_JOBS.c.input_file_id == file_id, _JOBS.c.rows_kept.is_(None)).limit(1)
    return conn.execute(statement).first() is not None


@dataclass(frozen=True, slots=True)
class Removed:
    """One step of removing rows: where to go on, and the trace parts that nothing points at any more."""

    job_id: str
    line: int
    rows: int
    parts: tuple[str, ...]


def left_behind(conn: Connection) -> bool:
    """Whether a schedule was deleted while rows of its marked jobs were reused by others, or not yet removed."""
    return conn.execute(select(_JOBS.c.id).where(_JOBS.c.rows_kept > 0, _UNOWNED).limit(1)).first() is not None


def remove_rows(
    conn: Connection, schedule_id: str | None, after: tuple[str, int], count: int, *, taken_over: bool
) -> Removed | None:
    """Look at up to `count` rows of a schedule's marked jobs after (job, line) and remove those that no run reuses.

    Without a schedule, those of jobs whose schedules were deleted are looked at.

    Rows that were taken over from others are looked at first (`taken_over`), then those with results of their own: the
    last row that was taken over from one lets that one go.

    The stored results of the rows are locked first. Whoever takes one over (`storage.reuse.known`) locks it too, so
    that it is either seen here as reused, or gone there. None when there are no more rows.
    """
    rows = conn.execute(_marked(schedule_id, after, count, taken_over=taken_over)).all()
    if not rows:
        return None
    keys = sorted({row.content_key for row in rows if row.content_key is not None})
    results = select(_RESULTS.c.content_key).where(any_of(_RESULTS.c.content_key, keys))
    conn.execute(results.order_by(_RESULTS.c.content_key).with_for_update()).all()
    reused = _reused(conn, [row.id for row in rows if row.content_key is not None])
    gone = [row for row in rows if row.id not in reused]
    ids = any_of(_RESULTS.c.query_id, [row.id for row in gone])
    conn.execute(delete(_RESULTS).where(any_of(_RESULTS.c.content_key, keys), ids))
    conn.execute(delete(_QUERIES).where(any_of(_QUERIES.c.id, [row.id for row in gone])))
    for job_id, number in sorted(Counter[str](row.job_id for row in gone).items()):
        conn.execute(update(_JOBS).where(_JOBS.c.id == job_id).values(rows_kept=_JOBS.c.rows_kept - number))
    return Removed(rows[-1].job_id, rows[-1].line, len(gone), _unused_parts(conn, gone))


def remove_job_rows(conn: Connection, count: int) -> Removed | None:
    """Remove up to `count` rows of marked jobs that no schedule made, so that nobody reuses them; None without any."""
    names = (_QUERIES.c.id, _QUERIES.c.job_id, _QUERIES.c.line, _QUERIES.c.reused_from, _QUERIES.c.trace_key)
    rows = conn.execute(
        select(*names)
        .join(_JOBS, _JOBS.c.id == _QUERIES.c.job_id)
        .where(_JOBS.c.rows_kept > 0, _JOBS.c.source != "schedule")
        .order_by(_QUERIES.c.job_id, _QUERIES.c.line)
        .limit(count)
    ).all()
    if not rows:
        return None
    conn.execute(delete(_QUERIES).where(any_of(_QUERIES.c.id, [row.id for row in rows])))
    for job_id, number in sorted(Counter[str](row.job_id for row in rows).items()):
        conn.execute(update(_JOBS).where(_JOBS.c.id == job_id).values(rows_kept=_JOBS.c.rows_kept - number))
    return Removed(rows[-1].job_id, rows[-1].line, len(rows), _unused_parts(conn, rows))


def _marked(schedule_id: str | None, after: tuple[str, int], count: int, *, taken_over: bool) -> Any:
    names = (_QUERIES.c.id, _QUERIES.c.job_id, _QUERIES.c.line, _QUERIES.c.content_key, _QUERIES.c.reused_from)
    job_id, line = after
    own = _QUERIES.c.reused_from.is_(None)
    slot = _SLOTS.c.job_id == _JOBS.c.id
    owned = _UNOWNED if schedule_id is None else exists().where(slot, _SLOTS.c.schedule_id == schedule_id)
    return (
        select(*names, _QUERIES.c.trace_key)
        .join(_JOBS, _JOBS.c.id == _QUERIES.c.job_id)
        .where(owned, _JOBS.c.rows_kept > 0, _JOBS.c.id >= job_id)
        .where(or_(_QUERIES.c.job_id > job_id, _QUERIES.c.line > line), ~own if taken_over else own)
        .order_by(_QUERIES.c.job_id, _QUERIES.c.line)
        .limit(count)
    )


def _reused(conn: Connection, query_ids: Sequence[int]) -> set[int]:
    """Those of the queries that others took their results from."""
    taken = aliased(_QUERIES)
    by_another = exists().where(taken.c.content_key == _QUERIES.c.content_key, taken.c.reused_from == _QUERIES.c.id)
    return set(conn.scalars(select(_QUERIES.c.id).where(any_of(_QUERIES.c.id, query_ids), by_another)))


def _unused_parts(conn: Connection, gone: Iterable[Any]) -> tuple[str, ...]:
    """Trace parts of rows that were removed, which no row of the same job needs; reused rows have theirs elsewhere."""
    mine = {(row.job_id, row.trace_key) for row in gone if row.trace_key is not None and row.reused_from is None}
    where = (any_of(_QUERIES.c.job_id, sorted({job_id for job_id, _ in mine})), _QUERIES.c.reused_from.is_(None))
    parts = any_of(_QUERIES.c.trace_key, sorted({key for _, key in mine}))
    needed = set(conn.scalars(select(_QUERIES.c.trace_key).where(*where, parts).distinct())) if mine else set()
    return tuple(sorted({key for _, key in mine} - needed))
