"""`/v1/batches`: create, show, list, cancel (sections 9.3 to 9.5, 9.10, 9.11)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query

from orchestrator import actions, limits
from orchestrator.api.access import Operator, Viewer, record
from orchestrator.api.bodies import JsonRoute
from orchestrator.api.errors import NotFound
from orchestrator.api.files import file_or_404
from orchestrator.api.openai import rows
from orchestrator.api.openai.creating import NewBatch, first_model, named_as_sent
from orchestrator.api.openai.models import answering
from orchestrator.api.openai.objects import Extras, batch_object, list_object, status_of
from orchestrator.api.paging import DryRun
from orchestrator.api.services import Services, Use
from orchestrator.api.submissions import plan
from orchestrator.service import new_id
from orchestrator.submit import submit
from reasoning.errors import BadInput
from storage.access import Caller

router = APIRouter(route_class=JsonRoute, prefix="/v1/batches", tags=["openai"])

MAX_PAGE = 100
REPEATED_WITHIN_S = 600.0
"""A retry of a client comes seconds after its first try; this is taken generously."""

IdempotencyKey = Annotated[str | None, Header(max_length=200, description="The same key gives the same batch.")]
RetryCount = Annotated[str | None, Header(max_length=10, description="Sent by clients: 0 on the first try.")]
Extended = Annotated[bool, Query(description="With stage counts, ETA and policy; else only if the batch asked.")]


@router.post("")
def create(
    new: NewBatch,
    use: Use,
    caller: Operator,
    idempotency_key: IdempotencyKey = None,
    x_stainless_retry_count: RetryCount = None,
    dry_run: DryRun = False,
) -> dict[str, Any]:
    """Create a batch over an uploaded file. A repeated request gives the batch of the first one.

    A dry run validates at once, tells the calls and tokens that it implies, and makes nothing.
    """
    file = file_or_404(use, caller, new.input_file_id, "input_file_id")
    model = answering(use, first_model(use.objects, file, use.settings))
    request = new.request(caller.project_id, model, idempotency_key)
    if dry_run:
        with named_as_sent():
            return plan(use, request)
    is_retry = (x_stainless_retry_count or "0") != "0"
    now = use.now()
    with use.db.write() as conn, named_as_sent():
        limits.lock_project(conn, caller.project_id)  # two equal requests at once make one batch
        batch = None
        if idempotency_key:
            batch = rows.created_with_key(conn, caller.project_id, idempotency_key)
            _check_same(batch, new)
        elif is_retry:
            values = {"input_file_id": new.input_file_id, "request": new.fingerprint()}
            batch = rows.created_alike(conn, caller.project_id, values, now - REPEATED_WITHIN_S)
        if batch is None:
            batch_id = submit(conn, request, use.settings, now, lambda _prefix: new_id("batch"))
            record(conn, caller, now, "job.submit", batch_id)
        else:
            batch_id = batch.id
    return _shown(use, caller, batch_id)


@router.get("")
def list_batches(
    use: Use,
    caller: Viewer,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Entries at most.")] = 20,
    after: Annotated[str | None, Query(max_length=100, description="Id of the last entry seen.")] = None,
    extended: Extended = False,
) -> dict[str, Any]:
    """Batches of the project, newest first."""
    with use.db.read() as conn:
        found = rows.batches_page(conn, caller.project_id, limit=limit + 1, after=after)
        shown = [batch_object(row, extras=_extras(use, conn, row, extended=extended)) for row in found]
    return list_object(shown, limit=limit)


@router.get("/{batch_id}")
def show(batch_id: str, use: Use, caller: Viewer, extended: Extended = False) -> dict[str, Any]:
    """One batch."""
    return _shown(use, caller, batch_id, extended=extended)


@router.post("/{batch_id}/cancel")
def cancel(batch_id: str, use: Use, caller: Operator) -> dict[str, Any]:
    """Stop a batch. Lines that are answered keep their answers; cancelling twice changes nothing."""
    status = status_of(batch_or_404(use, caller, batch_id))
    try:
        actions.cancel_job(use.db, batch_id, use.now(), "cancelled by the submitter")
    except BadInput as error:
        message = f"batch {batch_id} is {status}; only one that is validating or in_progress can be cancelled"
        # 409 would make clients try twice more.
        raise BadInput(message, code="batch_not_cancellable", field="batch_id") from error
    with use.db.write() as conn:
        record(conn, caller, use.now(), "job.cancel", batch_id)
    return _shown(use, caller, batch_id)


def batch_or_404(use: Services, caller: Caller, batch_id: str) -> Any:
    """The job row with its counters. Raises NotFound."""
    with use.db.read() as conn:
        row = rows.batch(conn, caller.project_id, batch_id)
    if row is None:
        raise NotFound("batch", batch_id)
    return row


def _shown(use: Services, caller: Caller, batch_id: str, *, extended: bool = False) -> dict[str, Any]:
    row = batch_or_404(use, caller, batch_id)
    with use.db.read() as conn:
        return batch_object(row, extras=_extras(use, conn, row, extended=extended))


def _extras(use: Services, conn: Any, row: Any, *, extended: bool) -> Extras | None:
    if not (extended or (row.options or {}).get("extended")):
        return None
    return Extras(rows.stage_counts(conn, row.id), use.forecasts(conn, [row])[row.id])


def _check_same(batch: Any, new: NewBatch) -> None:
    if batch is not None and (batch.options or {}).get("request") != new.fingerprint():
        raise BadInput(
            "this Idempotency-Key belongs to a batch with other contents; use a new key for a new batch",
            code="idempotency_key_reused",
            field="Idempotency-Key",
        )
