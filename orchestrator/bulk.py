"""One action on all queries of a job that a filter finds, carried out in slices.

What is wanted is a row. The orchestrator takes it a slice further at each look, one transaction a slice that also
writes down how far it is, so that any process may die and the next one goes on behind the last slice. Whoever asks
for an action on a few queries takes the first slice at once and need not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import structlog
from sqlalchemy import Connection

from orchestrator.actions import RETRYABLE, refuse_removed, run_again, start_again
from reasoning.errors import BadInput, Transient
from storage import access, bulk, jobs, planning, transitions
from storage.causes import caused
from storage.database import Database
from storage.search import Terms, query_terms

log = structlog.get_logger()

Action = Literal["retry", "cancel"]
STATUSES: dict[Action, tuple[str, ...]] = {"retry": RETRYABLE, "cancel": ("waiting", "running")}
"""Queries that an action applies to; others in the filter are left alone."""
SLICE = 1_000
"""Queries changed in one transaction; an action on fewer is over at once."""
COUNTED = 10_000
"""Counted exactly up to here before an action begins; the orchestrator counts the rest when it takes it up."""


class Slice(NamedTuple):
    """What one slice did."""

    line: int
    """The last line looked at."""
    changed: int
    unchanged: int
    last: bool
    """There is nothing behind it."""


def count(conn: Connection, job_id: str, terms: Terms, action: Action) -> int:
    """How many queries the action would change, counted up to `COUNTED + 1`."""
    return bulk.count(conn, job_id, terms, STATUSES[action], COUNTED)


def start(db: Database, job_id: str, text: str, action: Action, now: float, *, reason: str, actor: str) -> int:
    """Write down an action on what the filter finds and, if that is little, do it; the id of its row.

    Raises:
        BadInput: the filter cannot be read, there is no such job, nothing matches (`nothing_to_retry`), or the job
            cannot be retried now (`job_running`) or any more (`results_removed`).
    """
    terms = query_terms(text)
    with db.write() as conn:
        job = jobs.locked(conn, job_id)
        if job is None:
            raise BadInput(f"there is no job {job_id}", code="not_found", field="job")
        if action == "retry":
            _refuse_retry(job)
        found = count(conn, job_id, terms, action)
        if not found:
            raise BadInput(f"no query of job {job_id} that matches can be changed so", code="nothing_to_retry")
        counted = found if found <= COUNTED else None
        columns = {"job_id": job_id, "action": action, "filter": text, "reason": reason, "actor": actor}
        action_id = bulk.add(conn, **columns, counted=counted, created_at=now)
        _note(conn, action_id, actor, "", now, reason)
    if found < SLICE:
        take_slice(db, action_id, now)
    return action_id


def stop(db: Database, action_id: int, now: float, *, actor: str) -> None:
    """End an action where it stands: what it changed stays changed.

    Raises:
        BadInput: it is over already (`conflict`).
    """
    with db.write() as conn:
        row = bulk.locked(conn, action_id)
        if row is None or row.status != "running":
            raise BadInput("this action is over already", code="conflict")
        _end(conn, row, "stopped", now, "somebody stopped it", by=actor)


def step(db: Database, now: Callable[[], float], stopped: Callable[[], bool]) -> None:
    """Take all open actions to their ends, slice by slice in turn, or until `stopped`."""
    with db.read() as conn:
        ids = bulk.open_ids(conn)
    while ids and not stopped():
        ids = [action_id for action_id in ids if _goes_on(db, action_id, now())]


def take_slice(db: Database, action_id: int, now: float) -> bool:
    """Take an action one slice further; whether the next one can follow at once."""
    _count_first(db, action_id)
    with db.write() as conn:
        row = bulk.locked(conn, action_id)
        if row is None or row.status != "running":
            return False
        job: Any = jobs.locked(conn, row.job_id)
        if row.action == "retry" and job.cancelling_at is not None and job.cancelling_at >= row.created_at:
            _end(conn, row, "stopped", now, "the job was cancelled meanwhile")
            return False
        if row.action == "retry" and job.status == "finalizing":
            return False  # its files are written, which takes moments; then it can run again
        try:
            done = _slice(conn, row, job, now)
        except BadInput as error:
            _end(conn, row, "failed", now, error.message)
            return False
        bulk.move_on(conn, row.id, done.line, changed=done.changed, unchanged=done.unchanged)
        if done.last:
            _end(conn, row, "done", now)
        return not done.last


def _goes_on(db: Database, action_id: int, now: float) -> bool:
    """`take_slice`; an action that meets a defect is told of and tried again later, the others go on."""
    try:
        return take_slice(db, action_id, now)
    except Transient:
        raise
    except Exception:
        log.exception("A bulk action met a defect; it is tried again.", action="bulk.stuck", bulk_action=action_id)
        return False


def _count_first(db: Database, action_id: int) -> None:
    """Count what was too much to count while somebody waited, outside the transaction that others wait for."""
    with db.read() as conn:
        row = bulk.row(conn, action_id)
        if row is None or row.counted is not None or row.status != "running":
            return
        found = bulk.count(conn, row.job_id, query_terms(row.filter), STATUSES[row.action])
    with db.write() as conn:
        bulk.set_counted(conn, action_id, found)


def _slice(conn: Connection, row: Any, job: Any, now: float) -> Slice:
    """Change the next queries. Raises BadInput when the job cannot be retried any more."""
    if row.action == "retry":
        _refuse_retry(job)
    terms, statuses = query_terms(row.filter), STATUSES[row.action]
    found = bulk.next_slice(conn, job.id, terms, statuses, after_line=row.line, size=SLICE)
    if not found:
        return Slice(row.line, 0, 0, last=True)
    if row.action == "cancel":
        changed = _cancel(conn, job, [query.id for query in found], now)
    else:
        changed = _retry(conn, job, found, now, row.reason)
    return Slice(found[-1].line, changed, len(found) - changed, last=len(found) < SLICE)


def _retry(conn: Connection, job: Any, found: Sequence[Any], now: float, reason: str) -> int:
    """Put queries back; a job that had ended runs again."""
    changed = start_again(conn, job.id, found, now)
    if changed and job.status != "running":
        run_again(conn, job.id, now, reason)
    return changed


def _refuse_retry(job: Any) -> None:
    refuse_removed(job)
    if job.status not in ("running", "completed", "cancelled", "expired"):
        raise BadInput(f"job {job.id} is {job.status}; retry when it has ended", code="job_running")


def _cancel(conn: Connection, job: Any, ids: list[int], now: float) -> int:
    message = "a person cancelled this query"
    error = caused({"code": "cancelled", "message": message, "stage": None, "attempts": 0, "retryable": True})
    moves = [transitions.QueryMove(query_id, job.id, "cancelled", {"error": error}) for query_id in ids]
    moved = transitions.move_queries(conn, moves, now)
    planning.cancel_open(conn, sorted(moved), now)
    return len(moved)


def _end(conn: Connection, row: Any, status: str, now: float, note: str | None = None, by: str = "") -> None:
    """End an action and put into the audit record what it came to."""
    transitions.move_bulk(conn, row.id, status, now, note)
    changed = bulk.row(conn, row.id).changed
    said = f"{changed} changed" if note is None else f"{changed} changed; {note}"
    _note(conn, row.id, by or row.actor, f".{status}", now, said)
    log.info("A bulk action is over.", action="bulk.over", bulk_action=row.id, job_id=row.job_id, status=status)


def _note(conn: Connection, action_id: int, actor: str, ending: str, now: float, reason: str) -> None:
    """An audit entry about an action as it stands."""
    row = bulk.row(conn, action_id)
    job = jobs.locked(conn, row.job_id)
    access.note(
        conn,
        project_id=None if job is None else job.project_id,
        actor=actor,
        action=f"job.bulk_{row.action}{ending}",
        subject=row.job_id,
        now=now,
        reason=reason,
        details={"bulk_action": row.id, "filter": row.filter, "changed": row.changed},
    )
