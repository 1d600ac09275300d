"""What people do to a job: cancel, pause, resume, retry. Each is one transaction and says what it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, update

from orchestrator.cancelling import Step, step
from reasoning.errors import BadInput
from reasoning.records import CallStatus
from storage import jobs, queries, transitions
from storage.database import Database
from storage.portable import any_of
from storage.tables import Call, Job

OPEN = ("validating", "running")
RETRYABLE = ("failed", "cancelled", "expired")
RETRY_AT_ONCE = 2000
"""Queries put back per statement."""


def cancel_job(db: Database, job_id: str, now: float, reason: str, *, at_once: bool = False) -> str:
    """Stop a job: nothing new starts, and queries that run go on to their answers (`orchestrator.cancelling`).

    `at_once` gives those up too, also in a job that is being cancelled; any other second ask changes nothing.
    Answers that are there are kept. Returns the status after the call.

    Raises:
        BadInput: the job has ended (`job_ended`).
    """
    with db.write() as conn:
        job = jobs.locked(conn, job_id)
        if job is None:
            raise _unknown(job_id)
        asked = may_cancel(job, at_once=at_once)
        if asked is Step.NOTHING:
            return str(job.status)
        killed_at = now if asked is Step.KILL else None
        if job.status == "cancelling":
            jobs.kill(conn, job_id, now, reason)
        else:
            transitions.move_job(conn, job_id, "cancelling", now, reason=reason, killed_at=killed_at)
    return "cancelling"


def pause_job(db: Database, job_id: str, now: float, reason: str) -> None:
    """Admit no more queries of the job; those that run go on. Raises BadInput when it has ended."""
    _set_pause(db, job_id, now, reason)


def resume_job(db: Database, job_id: str) -> None:
    """Admit queries again. Raises BadInput when the job has ended."""
    _set_pause(db, job_id, None, None)


def retry_job(db: Database, job_id: str, now: float, reason: str) -> int:
    """Start the failed, cancelled and expired queries of an ended job again; outcomes that exist are kept.

    Lines that never were valid stay failed. Returns how many queries wait again.

    Raises:
        BadInput: the job still runs (`job_running`), there is nothing to retry (`nothing_to_retry`), or its rows are
            kept no longer (`results_removed`).
    """
    with db.write() as conn:
        job = jobs.locked(conn, job_id)
        if job is None:
            raise _unknown(job_id)
        may_retry(job)
        total = _restart_queries(conn, job_id, now)
        if not total:
            raise _nothing_to_retry(job_id)
        run_again(conn, job_id, now, reason)
    return total


def run_again(conn: Connection, job_id: str, now: float, reason: str) -> None:
    """Move a job that had ended to running, without the limit of time and the pause of its earlier run."""
    columns = dict.fromkeys(("expires_at", "folded_at", "paused_at", "paused_reason"))
    transitions.move_job(conn, job_id, "running", now, reason=reason, **columns)


def may_cancel(job: Any, *, at_once: bool) -> Step:
    """What cancelling the job would do now. Raises BadInput when it has ended (`job_ended`)."""
    asked = step(
        job.status, cancelling=job.cancelling_at is not None, killed=job.killed_at is not None, at_once=at_once
    )
    if asked is Step.REFUSE:
        message = f"job {job.id} is {job.status}; only a job that is validating or running can be cancelled"
        raise BadInput(message, code="job_ended")
    return asked


def may_pause(job: Any) -> None:
    """Raises BadInput when the job can be neither paused nor resumed (`job_ended`)."""
    if job.status not in OPEN:
        raise BadInput(f"job {job.id} is {job.status} and can be neither paused nor resumed", code="job_ended")


def may_retry(job: Any) -> None:
    """Raises BadInput when the job has not ended (`job_running`) or its results were removed (`results_removed`)."""
    if job.status not in ("completed", "cancelled", "expired"):
        raise BadInput(f"job {job.id} is {job.status}; retry it when it has ended", code="job_running")
    refuse_removed(job)


def rehearse_retry(job: Any) -> None:
    """Raises BadInput where `retry_job` would, for a job row with its counters."""
    may_retry(job)
    if not job.failed + job.cancelled + job.expired:
        raise _nothing_to_retry(job.id)


def refuse_removed(job: Any) -> None:
    """Refuse a job whose results were removed, by the retention of its schedule or by somebody.

    Raises:
        BadInput: they were (`results_removed`).
    """
    if job.rows_kept is None:
        return
    why = f"somebody removed them ({job.status_reason}); submit the questions again"
    if job.source == "schedule":
        why = "its schedule keeps no run that old (keep_days, keep_runs); run it or a backfill to have them again"
    raise BadInput(f"the results of job {job.id} are gone: {why}", code="results_removed")


def start_again(conn: Connection, job_id: str, rows: Sequence[Any], now: float) -> int:
    """Let ended queries (id and body each) wait again; outcomes that exist are kept. How many now wait.

    Lines that validation refused have no question and are left: there is nothing to run.
    """
    calls = Call.__table__
    ids = [row.id for row in rows if "question" in row.body]
    if not ids:
        return 0
    conn.execute(delete(calls).where(any_of(calls.c.query_id, ids), calls.c.status != CallStatus.DONE.value))
    moves = [transitions.QueryMove(query_id, job_id, "waiting", queries.BLANK) for query_id in ids]
    moved = transitions.move_queries(conn, moves, now)
    queries.count_retry(conn, sorted(moved))
    return len(moved)


def _restart_queries(conn: Connection, job_id: str, now: float) -> int:
    total, after_line = 0, 0
    while rows := queries.ended_after(conn, job_id, RETRYABLE, after_line, RETRY_AT_ONCE):
        after_line = rows[-1].line
        total += start_again(conn, job_id, rows, now)
    return total


def _set_pause(db: Database, job_id: str, now: float | None, reason: str | None) -> None:
    rows = Job.__table__
    with db.write() as conn:
        job = jobs.get(conn, job_id)
        if job is None:
            raise _unknown(job_id)
        may_pause(job)
        conn.execute(update(rows).where(rows.c.id == job_id).values(paused_at=now, paused_reason=reason))


def _nothing_to_retry(job_id: str) -> BadInput:
    return BadInput(f"job {job_id} has no failed query to retry", code="nothing_to_retry")


def _unknown(job_id: str) -> BadInput:
    return BadInput(f"there is no job {job_id}", code="not_found", field="job")
