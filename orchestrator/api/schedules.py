"""Schedules: make, change, look ahead, pause, run now, backfill."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.access import Operator, Viewer, record
from orchestrator.api.bodies import JsonRoute
from orchestrator.api.documents import page
from orchestrator.api.errors import NotFound
from orchestrator.api.jobs import Change as Reasoned
from orchestrator.api.paging import After, DryRun, Limit
from orchestrator.api.rehearse import rehearsed
from orchestrator.api.services import Services, Use
from orchestrator.schedules import acts
from orchestrator.schedules.backfill import CAP, BackfillRequest, plan_backfill, run_backfill
from orchestrator.schedules.define import Author, ScheduleDefinition, put_schedule, refuse_managed, shown_changes
from orchestrator.schedules.definitions import apply_definitions, checked_definitions
from orchestrator.schedules.documents import backfill_document, rule_document, schedule_document
from orchestrator.schedules.rule import Rule
from orchestrator.schedules.sources import SourceSettings, check_reach
from orchestrator.service import new_id
from storage import datasets, schedules, slots
from storage.access import Caller

router = APIRouter(route_class=JsonRoute, prefix="/api/schedules", tags=["schedules"])

Document = Annotated[dict[str, Any], Body()]
TICKS = 10
"""Newest slots shown with a schedule."""


class Backfill(BaseModel):
    """What to run again; times in seconds since the epoch, both included."""

    model_config = ConfigDict(extra="forbid")

    start: float
    end: float
    which: Literal["missing", "failed", "all"] = "missing"
    newest_first: bool = False
    cap: int = Field(default=CAP, ge=1, le=CAP)
    overlap: Literal["queue_all", "allow"] = "queue_all"
    confirm: str = Field(default="", description="The schedule's name, typed; needed for more than 50 slots.")


@router.get("")
def list_schedules(use: Use, caller: Viewer, limit: Limit = 100, after: After = None) -> dict[str, Any]:
    """Schedules of the project by name, each with its newest slots."""
    with use.db.read() as conn:
        rows = schedules.list_page(conn, caller.project_id, after=after, limit=limit)
        names = datasets.names(conn, [row.dataset_id for row in rows])
        last = slots.last_of_each(conn, [row.id for row in rows], TICKS)
    now = use.now()
    found = [schedule_document(row, names.get(row.dataset_id, ""), last.get(row.id, ()), now) for row in rows]
    return page(found, limit=limit, cursor="name")


@router.post("/rule")
def explain_rule(rule: Document, use: Use, _caller: Viewer) -> dict[str, Any]:
    """What a rule means: a sentence and the next five times. Nothing is saved."""
    return rule_document(Rule.from_mapping(rule), use.now())


@router.post("/apply")
def apply(definitions: Document, use: Use, caller: Operator, dry_run: DryRun = False) -> dict[str, Any]:
    """Make and change the datasets and schedules of a definition document, all or none; differences are told.

    A dry run also tells those of entries that are kept in a file of the scheduler, which it alone can change.
    """
    data = checked_definitions(definitions)
    for entry in (data.get("datasets") or {}).values():
        check_reach(SourceSettings.from_mapping(entry.get("source") or {}), use.settings, admin=caller.may("admin"))
    author = Author(caller.project_id, caller.key_id or "local", only_shows=dry_run)
    done = rehearsed(use.db, lambda conn: apply_definitions(conn, data, author, use.now(), new_id), dry_run=dry_run)
    return {"object": "definitions", "applied": not dry_run, "data": [entry.to_json() for entry in done]}


@router.put("/{name}")
def put(name: str, definition: Document, use: Use, caller: Operator, dry_run: DryRun = False) -> dict[str, Any]:
    """Make a schedule or change the one of that name. A changed rule takes effect from now."""
    wanted = ScheduleDefinition.from_mapping({**definition, "name": name})
    author = Author(caller.project_id, caller.key_id or "local")
    row, changes = rehearsed(
        use.db, lambda conn: put_schedule(conn, wanted, author, use.now(), new_id), dry_run=dry_run
    )
    found = schedule_document(row, wanted.dataset, (), use.now())
    return {
        **found,
        "next": rule_document(wanted.rule, use.now())["next"],
        "changes": [change.to_json() for change in shown_changes(changes)],
    }


@router.get("/{name}")
def show(name: str, use: Use, caller: Viewer) -> dict[str, Any]:
    """One schedule with its newest slots and next times."""
    return _document(use, schedule_or_404(use, caller, name))


@router.delete("/{name}")
def delete(name: str, use: Use, caller: Operator, dry_run: DryRun = False) -> dict[str, Any]:
    """Remove a schedule and the history of its slots; jobs and results stay."""
    row = schedule_or_404(use, caller, name)
    refuse_managed(row, "schedule")
    shown = _document(use, row)
    if not dry_run:
        with use.db.write() as conn:
            schedules.remove(conn, row.id)
            record(conn, caller, use.now(), "schedule.delete", row.id)
    return {**shown, "deleted": not dry_run}


@router.post("/{name}/pause")
def pause(
    name: str, use: Use, caller: Operator, why: Annotated[Reasoned | None, Body()] = None, dry_run: DryRun = False
) -> dict[str, Any]:
    """Skip slots from now on. Workers, jobs under way and other schedules go on."""
    row = schedule_or_404(use, caller, name)
    reason = (why.reason if why else "") or "no reason given"
    rehearsed(use.db, lambda conn: acts.pause_schedule(conn, row, use.now(), _actor(caller), reason), dry_run=dry_run)
    return _document(use, schedule_or_404(use, caller, name))


@router.post("/{name}/resume")
def resume(
    name: str, use: Use, caller: Operator, why: Annotated[Reasoned | None, Body()] = None, dry_run: DryRun = False
) -> dict[str, Any]:
    """Run slots again from now on; those of the pause stay skipped."""
    row = schedule_or_404(use, caller, name)
    reason = (why.reason if why else "") or "no reason given"
    rehearsed(use.db, lambda conn: acts.resume_schedule(conn, row, use.now(), _actor(caller), reason), dry_run=dry_run)
    return _document(use, schedule_or_404(use, caller, name))


@router.post("/{name}/run")
def run(name: str, use: Use, caller: Operator, dry_run: DryRun = False) -> dict[str, Any]:
    """Run now. No slot moves, and the run carries the name of who asked."""
    row = schedule_or_404(use, caller, name)
    slot_id = rehearsed(use.db, lambda conn: acts.run_now(conn, row, use.now(), _actor(caller)), dry_run=dry_run)
    return {"object": "slot.asked", "schedule": name, "slot_id": None if dry_run else slot_id}


@router.post("/{name}/backfill")
def backfill(name: str, asked: Backfill, use: Use, caller: Operator, dry_run: DryRun = False) -> dict[str, Any]:
    """Run slots of the past, one after the other and after all other work. A dry run lists them."""
    row = schedule_or_404(use, caller, name)
    request = BackfillRequest(**asked.model_dump())
    now = use.now()
    if dry_run:
        with use.db.read() as conn:
            plan = plan_backfill(conn, row, request, now)
    else:
        with use.db.write() as conn:
            plan = run_backfill(conn, row, request, now, _actor(caller))
    return {**backfill_document(plan, row.rule.get("zone", "UTC")), "made": not dry_run}


def schedule_or_404(use: Services, caller: Caller, name: str) -> Any:
    """The schedule row. Raises NotFound."""
    with use.db.read() as conn:
        row = schedules.named(conn, caller.project_id, name)
    if row is None:
        raise NotFound("schedule", name)
    return row


def _document(use: Services, row: Any) -> dict[str, Any]:
    with use.db.read() as conn:
        last = slots.last_of_each(conn, [row.id], TICKS).get(row.id, ())
        dataset = datasets.names(conn, [row.dataset_id]).get(row.dataset_id, "")
    now = use.now()
    ahead = rule_document(Rule.from_mapping(row.rule), max(now, row.cursor_at))["next"] if row.next_at else []
    return {**schedule_document(row, dataset, last, now), "next": ahead}


def _actor(caller: Caller) -> str:
    return caller.key_id or "local"
