"""A job again with changes: the same input under another policy, model or priority."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.actions import refuse_removed
from orchestrator.api.access import Operator, record
from orchestrator.api.bodies import JsonRoute
from orchestrator.api.jobs import job_or_404, shown
from orchestrator.api.paging import DryRun
from orchestrator.api.services import Use
from orchestrator.api.submissions import plan
from orchestrator.service import new_id
from orchestrator.submit import JobRequest, submit
from reasoning.errors import BadInput
from storage.access import Caller

router = APIRouter(route_class=JsonRoute, prefix="/api/jobs", tags=["jobs"])

NOT_CLONED = ("request", "extended")
"""Options that belong to the one request that made a batch."""


class Changes(BaseModel):
    """What is to be another; all else stays."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    model: str | None = None
    policy: dict[str, Any] = Field(default_factory=dict, description="Policy fields that change.")
    priority: Literal["interactive", "batch", "background"] | None = None
    weight: float | None = None
    on_bad_line: Literal["fail", "skip"] | None = None
    completion_window_s: float | None = None
    metadata: dict[str, Any] | None = None


@router.post("/{job_id}/clone")
def clone(job_id: str, changes: Changes, use: Use, caller: Operator, dry_run: DryRun = False) -> dict[str, Any]:
    """Submit the input of a job again. A dry run validates it at once, says what it would cost, and makes nothing."""
    request = _request(job_or_404(use, caller, job_id), changes, caller)
    if dry_run:
        return plan(use, request)
    now = use.now()
    with use.db.write() as conn:
        made = submit(conn, request, use.settings, now, new_id)
        record(conn, caller, now, "job.clone", made, f"of {job_id}")
    return shown(use, caller, made)


def _request(job: Any, changes: Changes, caller: Caller) -> JobRequest:
    refuse_removed(job)
    if job.input_file_id is None:
        raise BadInput(f"job {job.id} has no input file: it was one question; ask it again", code="no_input_file")
    options = {name: value for name, value in (job.options or {}).items() if name not in NOT_CLONED}
    window = changes.completion_window_s
    return JobRequest(
        project_id=caller.project_id,
        input_file_id=job.input_file_id,
        model=changes.model or job.model,
        policy={**job.policy, **changes.policy},
        name=job.name if changes.name is None else changes.name,
        priority=changes.priority or job.priority,
        weight=changes.weight or job.weight,
        on_bad_line=changes.on_bad_line or job.on_bad_line,
        line_format=job.line_format,
        completion_window_s=job.completion_window_s if window is None else window,
        attributes=changes.metadata if changes.metadata is not None else job.attributes,
        options=options,
        source="batch" if job.source == "batch" else "api",
        source_ref=job.id,
    )
