"""Reconcile: what no message will bring back is found in the rows and planned again.

Expired leases, lost messages, running queries that nobody plans, deadlines, cancelled jobs, jobs with
nothing left to do. Each step is repeatable and bounded; a backlog is worked off over several rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog

from orchestrator.advance import JOB_EXPIRED, Advanced, Outgoing, advance, chunked
from orchestrator.cancelling import gives_up
from storage import calls, jobs, planning, queries, transitions
from storage.causes import caused
from storage.database import Database
from storage.settings import Settings

log = structlog.get_logger()

AT_ONCE = 500
"""Rows per step and round."""

ENDED_PER_ROUND = 10_000
"""Queries of a cancelled or expired job that end in one round, in transactions of `AT_ONCE`."""

BACKLOG_RESEND_S = 60.0
"""A message that waits behind others counts as lost after this long, doubled with every sending."""

Depth = Callable[[str], int]
"""Messages of a model's queue that no worker has taken yet."""


def reconcile(db: Database, settings: Settings, depth: Depth, now: float) -> Advanced:
    """One round. The caller sends what is returned."""
    done = Advanced()
    for ended in (_leases(db, now), _stalled(db, settings, now), _overdue(db, now)):
        done.outgoing += ended.outgoing
    done.outgoing += _lost_messages(db, settings, depth, now)
    for job in _jobs_to_move(db):
        _move_job(db, job, now)
    return done


def settle(db: Database, job_ids: Iterable[str], now: float) -> None:
    """Move those running jobs on whose last query has just ended, without waiting for the next round."""
    with db.read() as conn:
        over = [job_id for job_id in job_ids if _is_over(jobs.get(conn, job_id))]
    for job_id in over:
        with db.write() as conn:
            transitions.move_job(conn, job_id, "finalizing", now, reason="all queries ended")


def _is_over(job: Any) -> bool:
    return job is not None and job.status == "running" and not job.waiting and not job.running


def _leases(db: Database, now: float) -> Advanced:
    with db.write() as conn:
        expired = calls.expire_leases(conn, now)
    if expired.queued or expired.failed:
        log.warning(
            "Leases ran out; their calls go out again.",
            action="reconcile.leases",
            again=len(expired.queued),
            failed=len(expired.failed),
        )
    done = advance(db, [call.query_id for call in expired.failed], now)
    done.outgoing += _outgoing(db, [call.id for call in expired.queued], now)
    return done


def _stalled(db: Database, settings: Settings, now: float) -> Advanced:
    """A wake-up may be on its way for as long as one round: those of a busy moment are not planned twice."""
    with db.read() as conn:
        ids = queries.stalled(conn, now - settings.reconcile_s, AT_ONCE)
    return advance(db, ids, now) if ids else Advanced()


def _overdue(db: Database, now: float) -> Advanced:
    with db.read() as conn:
        ids = queries.overdue(conn, now, AT_ONCE)
    return advance(db, ids, now) if ids else Advanced()


def _lost_messages(db: Database, settings: Settings, depth: Depth, now: float) -> list[Outgoing]:
    """Queued calls whose message is gone: their queue is empty, or they have waited far too long."""
    lost: list[int] = []
    with db.read() as conn:
        for model in planning.models_waiting(conn, now - settings.resend_s):
            patience = settings.resend_s if depth(model) == 0 else max(BACKLOG_RESEND_S, settings.resend_s)
            lost += planning.sent_before(conn, model, now, patience, AT_ONCE)
    if lost:
        log.info("Queued calls go out again.", action="reconcile.resend", calls=len(lost))
    return _outgoing(db, lost, now)


def _outgoing(db: Database, call_ids: Iterable[int], now: float) -> list[Outgoing]:
    ids = sorted(call_ids)
    if not ids:
        return []
    with db.write() as conn:
        queued = planning.mark_sent(conn, ids, now)
        priorities = planning.priorities_of(conn, [call.query_id for call in queued])
    return chunked(queued, priorities)


def _jobs_to_move(db: Database) -> list[Any]:
    with db.read() as conn:
        return list(jobs.in_status(conn, "running", "cancelling"))


def _move_job(db: Database, job: Any, now: float) -> None:
    expired = job.status == "running" and job.expires_at is not None and job.expires_at < now
    if job.status == "cancelling":
        given_up = gives_up(job.cancelling_at, job.killed_at, now)
        _end_queries(db, job, "cancelled", ("waiting", "running") if given_up else ("waiting",), now)
    elif expired:
        _end_queries(db, job, "expired", ("waiting",), now)
        _answer_with_best_so_far(db, job, now)
    with db.write() as conn:
        fresh = jobs.get(conn, job.id)
        if fresh is None or fresh.waiting or fresh.running:
            return
        reason = fresh.status_reason if fresh.status == "cancelling" else "all queries ended"
        transitions.move_job(conn, job.id, "finalizing", now, reason=reason)


def _answer_with_best_so_far(db: Database, job: Any, now: float) -> None:
    """Plan what still runs in a job whose time is over: under that limit each query ends."""
    with db.read() as conn:
        ids = queries.in_status(conn, job.id, ("running",), AT_ONCE)
    if ids:
        advance(db, ids, now)


_TOLD = {
    "cancelled": (
        "job_cancelled",
        "the job was cancelled before this query ended; retry the failures to have it run",
    ),
    "expired": (
        JOB_EXPIRED,
        (
            "the time of the job was over before this query ran; retry the failures, "
            "or give the next job a longer completion window or fewer candidates"
        ),
    ),
}
"""Code and message of queries that ended with their job, by how they end. A retry of the job has no time limit."""


def _end_queries(db: Database, job: Any, to: str, statuses: Sequence[str], now: float) -> None:
    code, message = _TOLD[to]
    error = caused({"code": code, "message": message, "stage": None, "attempts": 0, "retryable": True})
    for _ in range(ENDED_PER_ROUND // AT_ONCE):
        with db.write() as conn:
            ids = queries.in_status(conn, job.id, statuses, AT_ONCE)
            moves = [transitions.QueryMove(query_id, job.id, to, {"error": error}) for query_id in ids]
            if moves:
                transitions.move_queries(conn, moves, now)
                planning.cancel_open(conn, ids, now)
        if len(ids) < AT_ONCE:
            return
