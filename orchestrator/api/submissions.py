"""Submitting a job: over an uploaded file, or with its lines in the request."""

from __future__ import annotations

import hashlib
import io
from typing import Any, Literal

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.api.access import Operator, record
from orchestrator.api.bodies import JsonRoute
from orchestrator.api.documents import job_document
from orchestrator.api.files import Received, store
from orchestrator.api.jobs import job_or_404
from orchestrator.api.openai.creating import Webhook
from orchestrator.api.paging import DryRun
from orchestrator.api.services import Services, Use
from orchestrator.estimate import estimate
from orchestrator.intake.keeper import BlobKeeper
from orchestrator.intake.survey import Report
from orchestrator.service import new_id
from orchestrator.submit import JobRequest, check, check_chunks, effective_policy, submit
from storage.access import Caller

router = APIRouter(route_class=JsonRoute, prefix="/api/jobs", tags=["jobs"])

NO_NULL = r"^[^\x00]*$"
"""No database keeps a null character in text."""

MAX_INLINE_LINES = 1000
"""More lines than this belong in a file."""


class NewJob(BaseModel):
    """What to run. Give `file_id` or `lines`."""

    model_config = ConfigDict(extra="forbid")

    file_id: str | None = Field(default=None, description="An uploaded file, one query a line.")
    lines: list[dict[str, Any]] | None = Field(default=None, max_length=MAX_INLINE_LINES, min_length=1)
    name: str = ""
    model: str = Field(default="", pattern=NO_NULL, description="Empty means the model of the server.")
    policy: dict[str, Any] = Field(default_factory=dict)
    priority: str = "batch"
    weight: float = 1.0
    on_bad_line: Literal["fail", "skip"] = "fail"
    line_format: Literal["native", "openai"] = "native"
    completion_window_s: float | None = None
    metadata: dict[str, Any] | None = None
    trace: bool = Field(default=False, description="Write the stages into the output file too.")
    webhook: Webhook | None = None

    @model_validator(mode="after")
    def _one_source(self) -> NewJob:
        if (self.file_id is None) == (self.lines is None):
            raise ValueError("give either file_id or lines")
        return self

    def request(self, project_id: str, file_id: str, default_model: str) -> JobRequest:
        """The request as `orchestrator.submit` takes it."""
        return JobRequest(
            project_id=project_id,
            input_file_id=file_id,
            model=self.model or default_model,
            policy=self.policy,
            name=self.name,
            priority=self.priority,
            weight=self.weight,
            on_bad_line=self.on_bad_line,
            line_format=self.line_format,
            completion_window_s=self.completion_window_s,
            attributes=self.metadata,
            options=self._options(),
        )

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"trace": True} if self.trace else {}
        return {**options, "webhook": self.webhook.model_dump()} if self.webhook else options

    def jsonl(self) -> bytes:
        """The lines of the request as a file."""
        return b"".join(orjson.dumps(line) + b"\n" for line in self.lines or ())


@router.post("", status_code=200)
def create_job(new: NewJob, use: Use, caller: Operator, dry_run: DryRun = False) -> dict[str, Any]:
    """Submit a job; it is validated next and then runs. A dry run validates at once and says what it would cost."""
    if dry_run:
        return _dry_run(new, use, caller)
    file_id = new.file_id or _store_lines(new, use, caller)
    request = new.request(caller.project_id, file_id, served_model(use.settings.model))
    now = use.now()
    with use.db.write() as conn:
        job_id = submit(conn, request, use.settings, now, new_id)
        record(conn, caller, now, "job.submit", job_id)
    return job_document(job_or_404(use, caller, job_id), now)


def served_model(model: str) -> str:
    """The model as jobs and queues name it: settings of the scripted engine are no part of the name."""
    return "scripted" if model.startswith("scripted:") else model


def _dry_run(new: NewJob, use: Services, caller: Caller) -> dict[str, Any]:
    request = new.request(caller.project_id, new.file_id or "", served_model(use.settings.model))
    if new.file_id is not None:
        return plan(use, request)
    keeper = BlobKeeper(use.db, use.objects, use.now, dry=True)
    return _plan_document(use, request, check_chunks([new.jsonl()], request, use.settings, keeper))


def plan(use: Services, request: JobRequest) -> dict[str, Any]:
    """What a job over an uploaded file would come to. Raises BadInput on the request itself."""
    return _plan_document(use, request, check(use.db, use.objects, request, use.settings, use.now))


def _plan_document(use: Services, request: JobRequest, report: Report) -> dict[str, Any]:
    with use.db.read() as conn:
        likely = estimate(conn, request.model, effective_policy(request, use.settings), report.cost)
    return {"object": "job.plan", "model": request.model, **report.to_json(), "estimate": likely}


def _store_lines(new: NewJob, use: Services, caller: Caller) -> str:
    data = new.jsonl()
    received = Received(io.BytesIO(data), "lines.jsonl", len(data), hashlib.sha256(data).hexdigest())
    return str(store(use, caller, received)["id"])
