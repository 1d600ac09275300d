"""Submitting a job: over an uploaded file, or with its lines in the request."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Connection

from orchestrator import limits
from orchestrator.api import reads
from orchestrator.api.access import Operator, record
from orchestrator.api.bodies import JsonRoute
from orchestrator.api.files import Received, store
from orchestrator.api.jobs import shown
from orchestrator.api.openai.creating import Webhook
from orchestrator.api.paging import DryRun
from orchestrator.api.services import Services, Use
from orchestrator.estimate import estimate
from orchestrator.intake.keeper import BlobKeeper
from orchestrator.intake.survey import Report
from orchestrator.service import new_id
from orchestrator.submit import JobRequest, check, check_chunks, effective_policy, submit
from reasoning.errors import BadInput
from storage import files, overview
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

    def fingerprint(self) -> str:
        """Equal for requests that ask for the same."""
        return hashlib.sha256(orjson.dumps(self.model_dump(), option=orjson.OPT_SORT_KEYS)).hexdigest()

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"trace": True} if self.trace else {}
        return {**options, "webhook": self.webhook.model_dump()} if self.webhook else options

    def jsonl(self) -> bytes:
        """The lines of the request as a file."""
        return b"".join(orjson.dumps(line) + b"\n" for line in self.lines or ())


IdempotencyKey = Annotated[str | None, Header(max_length=200, description="The same key gives the same job.")]


@router.post("", status_code=200)
def create_job(
    new: NewJob, use: Use, caller: Operator, idempotency_key: IdempotencyKey = None, dry_run: DryRun = False
) -> dict[str, Any]:
    """Submit a job; it is validated next and then runs. A dry run validates at once and says what it would cost.

    `same_as` names an earlier job over the same content with the same model and policy.
    """
    if dry_run:
        return _dry_run(new, use, caller)
    now, twin = use.now(), None
    with use.db.read() as conn:
        job_id = _made_with(conn, caller, idempotency_key, new)
    if job_id is None:
        file_id = new.file_id or _store_lines(new, use, caller)
        request = new.request(caller.project_id, file_id, served_model(use.settings.model))
        if idempotency_key is not None:
            options = {**(request.options or {}), "request": new.fingerprint()}
            request = replace(request, source_ref=idempotency_key, options=options)
        with use.db.write() as conn:
            limits.lock_project(conn, caller.project_id)  # two equal requests at once make one job
            job_id = _made_with(conn, caller, idempotency_key, new)
            if job_id is None:
                twin = _twin(conn, request, use)
                job_id = submit(conn, request, use.settings, now, new_id)
                record(conn, caller, now, "job.submit", job_id)
    return {**shown(use, caller, job_id), "same_as": twin}


def _made_with(conn: Connection, caller: Caller, key: str | None, new: NewJob) -> str | None:
    """The job that a request with this key made. Raises BadInput when it asked for something else."""
    row = None if key is None else reads.created_with_key(conn, caller.project_id, key)
    if row is None:
        return None
    if (row.options or {}).get("request") != new.fingerprint():
        message = "this Idempotency-Key belongs to a job with other contents; use a new key for a new job"
        raise BadInput(message, code="idempotency_key_reused", field="Idempotency-Key")
    return str(row.id)


def _twin(conn: Connection, request: JobRequest, use: Services) -> str | None:
    file = files.get(conn, request.project_id, request.input_file_id or "")
    if file is None:
        return None
    digest = effective_policy(request, use.settings).digest
    found = overview.same_work(conn, request.project_id, file.sha256, request.model, digest)
    return None if found is None else str(found.id)


def served_model(model: str) -> str:
    """The model as jobs and queues name it: settings of the scripted engine are no part of the name."""
    return "scripted" if model.startswith("scripted:") else model


def _dry_run(new: NewJob, use: Services, caller: Caller) -> dict[str, Any]:
    request = new.request(caller.project_id, new.file_id or "", served_model(use.settings.model))
    if new.file_id is not None:
        return plan(use, request)
    keeper = BlobKeeper(use.db, use.objects, caller.project_id, use.now, dry=True)
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
