"""Removing the results of a job that nobody needs any more. Its counts stay, and with them the history.

The job is marked and its files go at once; its rows, calls and traces follow in small steps. Runs of a schedule are
left to its retention (`orchestrator.schedules.retention`), as later runs may have taken their answers over.
"""

from __future__ import annotations

from typing import Any

from reasoning.errors import BadInput
from storage import files, jobs, retention
from storage.database import Database
from storage.objects import ObjectStore

ROWS_AT_ONCE = 500


def remove_results(db: Database, objects: ObjectStore, job_id: str, now: float, reason: str) -> None:
    """Remove what an ended job came to: from now on nobody reads it. The input and the images stay.

    Raises:
        BadInput: there is no such job, it has not ended (`job_running`), a schedule keeps it (`kept_by_schedule`), or
            its results were removed before (`results_removed`).
    """
    with db.write() as conn:
        job = jobs.locked(conn, job_id)
        if job is None:
            raise BadInput(f"there is no job {job_id}", code="not_found", field="job")
        may_remove(job)
        retention.mark_job(conn, job_id, reason)
        doomed = [name for name in (job.output_file_id, job.error_file_id) if name is not None]
        gone = [files.delete(conn, job.project_id, file_id, now) for file_id in doomed]
        freed = {row.object_key for row in gone if row is not None}
        freed -= files.in_use(conn, freed)
    for key in freed:
        objects.delete(key)


def remove_marked_rows(db: Database, objects: ObjectStore) -> int:
    """Remove the rows and traces of jobs whose results were removed; how many rows that were. Can be repeated."""
    total = 0
    while True:
        with db.write() as conn:
            step = retention.remove_job_rows(conn, ROWS_AT_ONCE)
        if step is None:
            return total
        total += step.rows
        for key in step.parts:
            objects.delete(key)


def may_remove(job: Any) -> None:
    """Raises BadInput where `remove_results` would."""
    if job.ended_at is None:
        raise BadInput(f"job {job.id} is {job.status}; cancel it first, or wait", code="job_running")
    if job.source == "schedule":
        message = f"job {job.id} is a run of a schedule, which decides how long it is kept (keep_days, keep_runs)"
        raise BadInput(message, code="kept_by_schedule")
    if job.rows_kept is not None:
        raise BadInput(f"the results of job {job.id} were removed before", code="results_removed")
