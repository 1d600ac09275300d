"""Jobs: list, show, cancel, retry, pause, resume. Submitting has its own file."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field

from orchestrator import actions
from orchestrator.api import reads
from orchestrator.api.access import Admin, Operator, Viewer, record
from orchestrator.api.bodies import JsonRoute
from orchestrator.api.documents import job_document, page
from orchestrator.api.errors import NotFound
from orchestrator.api.paging import After, DryRun, Filter, Limit, Statuses, known_statuses
from orchestrator.api.services import Services, Use
from orchestrator.removal import may_remove, remove_results
from storage.access import Caller
from storage.search import job_terms
from storage.transitions import JOB_MOVES

router = APIRouter(route_class=JsonRoute, prefix="/api/jobs", tags=["jobs"])


class Change(BaseModel):
    """The body of an action on a job; may be left out."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(
        default="", max_length=500, pattern=r"^[^\x00]*$", description="Why; shown with the job and in the audit trail."
    )


class Cancel(Change):
    """The body of a cancel; may be left out."""

    now: bool = Field(default=False, description="Give up what runs, too; also for a job that is being cancelled.")


Why = Annotated[Change | None, Body()]
WhyCancel = Annotated[Cancel | None, Body()]


@router.get("")
def list_jobs(
    *,
    use: Use,
    caller: Viewer,
    limit: Limit = 100,
    after: After = None,
    status: Statuses = [],  # noqa: B006 - FastAPI copies it
    name: str | None = None,
    model: str | None = None,
    filter: Filter = "",  # noqa: A002 - the parameter's name
) -> dict[str, Any]:
    """Jobs of the project, newest first."""
    terms, status = job_terms(filter), known_statuses(status, JOB_MOVES)
    with use.db.read() as conn:
        rows = reads.jobs_page(
            conn, caller.project_id, terms, limit=limit, after=after, status=status, name=name, model=model
        )
        etas = use.forecasts(conn, rows)
    return page((job_document(row, etas[row.id]) for row in rows), limit=limit)


@router.get("/{job_id}")
def show_job(job_id: str, use: Use, caller: Viewer) -> dict[str, Any]:
    """One job with its counts and usage."""
    return shown(use, caller, job_id)


@router.post("/{job_id}/cancel")
def cancel(job_id: str, use: Use, caller: Operator, why: WhyCancel = None, dry_run: DryRun = False) -> dict[str, Any]:
    """Stop a job: nothing new starts, what runs may end within ten minutes. With `now` that is given up too."""
    row = job_or_404(use, caller, job_id)
    at_once = why is not None and why.now
    if dry_run:
        actions.may_cancel(row, at_once=at_once)
    else:
        reason = _reason(why, "cancelled by the submitter")
        actions.cancel_job(use.db, job_id, use.now(), reason, at_once=at_once)
    return _changed(use, caller, job_id, "job.cancel_now" if at_once else "job.cancel", why, dry_run=dry_run)


@router.post("/{job_id}/retry")
def retry(job_id: str, use: Use, caller: Operator, why: Why = None, dry_run: DryRun = False) -> dict[str, Any]:
    """Start the failed, cancelled and expired queries of an ended job again."""
    row = job_or_404(use, caller, job_id)
    if dry_run:
        actions.rehearse_retry(row)
    else:
        actions.retry_job(use.db, job_id, use.now(), _reason(why, "retried by the submitter"))
    return _changed(use, caller, job_id, "job.retry", why, dry_run=dry_run)


@router.post("/{job_id}/pause")
def pause(job_id: str, use: Use, caller: Operator, why: Why = None, dry_run: DryRun = False) -> dict[str, Any]:
    """Start no more queries of a job; those that run go on."""
    row = job_or_404(use, caller, job_id)
    if dry_run:
        actions.may_pause(row)
    else:
        actions.pause_job(use.db, job_id, use.now(), _reason(why, "paused by the submitter"))
    return _changed(use, caller, job_id, "job.pause", why, dry_run=dry_run)


@router.post("/{job_id}/resume")
def resume(job_id: str, use: Use, caller: Operator, why: Why = None, dry_run: DryRun = False) -> dict[str, Any]:
    """Start queries of a paused job again."""
    row = job_or_404(use, caller, job_id)
    if dry_run:
        actions.may_pause(row)
    else:
        actions.resume_job(use.db, job_id)
    return _changed(use, caller, job_id, "job.resume", why, dry_run=dry_run)


@router.post("/{job_id}/remove")
def remove(job_id: str, use: Use, caller: Admin, why: Why = None, dry_run: DryRun = False) -> dict[str, Any]:
    """Remove the results, files and traces of an ended job for good; its counts stay."""
    row = job_or_404(use, caller, job_id)
    if dry_run:
        may_remove(row)
    else:
        remove_results(use.db, use.objects, job_id, use.now(), _reason(why, "removed by an administrator"))
    return _changed(use, caller, job_id, "job.remove", why, dry_run=dry_run)


def job_or_404(use: Services, caller: Caller, job_id: str) -> Any:
    """The job row with its counters. Raises NotFound when the caller's project has no such job."""
    with use.db.read() as conn:
        row = reads.job(conn, caller.project_id, job_id)
    if row is None:
        raise NotFound("job", job_id)
    return row


def shown(use: Services, caller: Caller, job_id: str) -> dict[str, Any]:
    """The document of a job. Raises NotFound."""
    row = job_or_404(use, caller, job_id)
    with use.db.read() as conn:
        return job_document(row, use.forecasts(conn, [row])[row.id])


def job_with_results(use: Services, caller: Caller, job_id: str) -> Any:
    """The same, of a job whose results are to be read. Raises BadInput when they were removed (`results_removed`)."""
    row = job_or_404(use, caller, job_id)
    actions.refuse_removed(row)
    return row


def _changed(
    use: Services, caller: Caller, job_id: str, action: str, why: Change | None, *, dry_run: bool
) -> dict[str, Any]:
    if not dry_run:
        with use.db.write() as conn:
            record(conn, caller, use.now(), action, job_id, _reason(why, "") or None)
    return shown(use, caller, job_id)


def _reason(why: Change | None, default: str) -> str:
    return (why.reason if why else "") or default
