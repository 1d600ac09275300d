"""Slots of a schedule: what ran, what was skipped or missed and why, and what a run would do."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from orchestrator.api.access import Operator, Viewer
from orchestrator.api.bodies import JsonRoute
from orchestrator.api.documents import page
from orchestrator.api.errors import NotFound
from orchestrator.api.paging import Limit, Statuses, known_statuses
from orchestrator.api.schedules import schedule_or_404
from orchestrator.api.services import Services, Use
from orchestrator.intake.keeper import BlobKeeper
from orchestrator.models import served_model
from orchestrator.schedules.content import revisions, salt
from orchestrator.schedules.documents import decision_document, rule_document, slot_document
from orchestrator.schedules.flips import flips_of
from orchestrator.schedules.preview import foresee_run, foresee_tick
from orchestrator.schedules.records import plan_of
from orchestrator.schedules.sources import SourceReader
from orchestrator.submit import JobRequest, effective_policy
from storage import datasets, slots
from storage.access import Caller
from storage.transitions import SLOT_MOVES

router = APIRouter(route_class=JsonRoute, prefix="/api/schedules", tags=["schedules"])

DECISIONS_SHOWN = 200


@router.get("/{name}/slots")
def list_slots(
    *,
    name: str,
    use: Use,
    caller: Viewer,
    limit: Limit = 100,
    after: Annotated[int | None, Query(ge=1, description="`next` of the part before this one.")] = None,
    status: Statuses = [],  # noqa: B006 - FastAPI copies it
) -> dict[str, Any]:
    """Slots of a schedule, newest first, those that did not run among them."""
    row = schedule_or_404(use, caller, name)
    with use.db.read() as conn:
        wanted = known_statuses(status, SLOT_MOVES)
        rows = slots.page(conn, row.id, limit=limit, before=after, status=wanted)
    return page(map(slot_document, rows), limit=limit)


@router.get("/{name}/slots/{slot_id}")
def show_slot(name: str, slot_id: int, use: Use, caller: Viewer) -> dict[str, Any]:
    """One slot with its report."""
    return slot_document(slot_or_404(use, caller, name, slot_id))


@router.get("/{name}/slots/{slot_id}/flips")
def flips(
    *,
    name: str,
    slot_id: int,
    use: Use,
    caller: Viewer,
    limit: Limit = 100,
    after: Annotated[int, Query(ge=0, description="`next` of the part before this one: a line.")] = 0,
) -> dict[str, Any]:
    """Rows that this run and the one before answered differently, with the ids of both queries.

    `forgotten`: the rows of one of the runs are kept no longer, and these are the flips that its report lists.
    """
    slot = slot_or_404(use, caller, name, slot_id)
    with use.db.read() as conn:
        found = flips_of(conn, slot, after_line=after, limit=limit)
    return page(found.rows, limit=limit, cursor="line") | {"forgotten": found.forgotten}


@router.get("/{name}/preview")
def preview(
    *,
    name: str,
    use: Use,
    caller: Operator,
    at: Annotated[float | None, Query(description="Seconds since the epoch; now if left out.")] = None,
    rows: Annotated[bool, Query(description="Read the dataset and count what a run would compute.")] = False,
) -> dict[str, Any]:
    """What the scheduler would do at a time, and what a run over the dataset as it is now would compute."""
    row = schedule_or_404(use, caller, name)
    when = use.now() if at is None else at
    plan = plan_of(row)
    decision = foresee_tick(plan, row.cursor_at, when)
    zone = plan.rule.zone
    return {
        "object": "schedule.preview",
        "schedule": name,
        "at": when,
        "would": decision_document(decision.slots[-DECISIONS_SHOWN:], zone),
        "would_count": len(decision.slots),
        "more": decision.more,
        "next": rule_document(plan.rule, max(when, row.cursor_at))["next"],
        "run": _run(use, row, when) if rows else None,
    }


def slot_or_404(use: Services, caller: Caller, name: str, slot_id: int) -> Any:
    """The slot row. Raises NotFound."""
    schedule = schedule_or_404(use, caller, name)
    with use.db.read() as conn:
        row = slots.get(conn, slot_id)
    if row is None or row.schedule_id != schedule.id:
        raise NotFound("slot", slot_id)
    return row


def _run(use: Services, row: Any, when: float) -> dict[str, Any]:
    with use.db.read() as conn:
        dataset = datasets.get(conn, row.dataset_id)
        if dataset is None:
            raise NotFound("dataset", row.dataset_id)
        model = dataset.model or served_model(use.settings.model)
        request = JobRequest(project_id=row.project_id, input_file_id=None, model=model, policy=dataset.policy)
        policy = effective_policy(request, use.settings)
        known = salt(row.project_id, model, policy, revisions(conn, model, policy))
    opened = SourceReader(use.objects, use.settings)(dataset, when)
    keeper = BlobKeeper(use.db, use.objects, row.project_id, use.now, dry=True)
    return foresee_run(use.db, keeper, use.settings, opened, known, policy).to_json(policy)
