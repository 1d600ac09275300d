"""One schedule: what comes, what ran, what did not and why; and the levers."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from orchestrator.api.errors import NotFound
from orchestrator.schedules import acts
from orchestrator.schedules.documents import sentence_of
from orchestrator.schedules.occurrences import following
from orchestrator.schedules.records import plan_of
from orchestrator.schedules.words import shown
from orchestrator.web.pages import Ask
from orchestrator.web.schedules.shapes import SLOT_SHAPES, SLOT_WORDS, state
from reasoning.errors import BadInput
from storage import datasets, schedules, slots
from storage.transitions import SLOT_MOVES

PAGE = 50
AHEAD = 5
MAX_REASON = 300


def show(ask: Ask) -> Response:
    """Upcoming and past slots, filtered by outcome."""
    row = schedule_of(ask)
    now = ask.use.now()
    status = ask.query.get("status", "")
    before = ask.query.get("before", "")
    wanted = (status,) if status in SLOT_MOVES else ()
    with ask.use.db.read() as conn:
        found = slots.page(conn, row.id, limit=PAGE, before=int(before) if before.isdigit() else None, status=wanted)
        dataset = datasets.names(conn, [row.dataset_id]).get(row.dataset_id, "")
    plan = plan_of(row)
    coming = following(plan.rule, max(now, row.cursor_at), AHEAD) if row.next_at else []
    return ask.page(
        "schedules/show.html",
        schedule=row,
        dataset=dataset,
        sentence=sentence_of(row.rule),
        state=state(row, now),
        options=plan.options,
        coming=[(at, shown(at, plan.rule.zone)) for at in coming],
        slots=found[:PAGE],
        older=found[PAGE - 1].id if len(found) > PAGE else None,
        statuses=tuple(SLOT_MOVES),
        status_chosen=status,
        shapes=SLOT_SHAPES,
        words=SLOT_WORDS,
        done=ask.query.get("done"),
    )


def pause(ask: Ask) -> Response:
    """Skip slots from now on."""
    row, reason = schedule_of(ask), _reason(ask)
    with ask.use.db.write() as conn:
        acts.pause_schedule(conn, row, ask.use.now(), ask.viewer.actor, reason)
    return ask.go("schedules", row.name, done="pause")


def resume(ask: Ask) -> Response:
    """Run slots again from now on."""
    row, reason = schedule_of(ask), _reason(ask)
    with ask.use.db.write() as conn:
        acts.resume_schedule(conn, row, ask.use.now(), ask.viewer.actor, reason)
    return ask.go("schedules", row.name, done="resume")


def run(ask: Ask) -> Response:
    """Run now; no slot moves."""
    row = schedule_of(ask)
    with ask.use.db.write() as conn:
        acts.run_now(conn, row, ask.use.now(), ask.viewer.actor)
    return ask.go("schedules", row.name, done="run")


def schedule_of(ask: Ask) -> Any:
    """The schedule that the address names. Raises NotFound."""
    name = ask.part("name")
    with ask.use.db.read() as conn:
        row = schedules.named(conn, ask.viewer.project_id, name)
    if row is None:
        raise NotFound("schedule", name)
    return row


def _reason(ask: Ask) -> str:
    given = ask.field("reason")[:MAX_REASON]
    if not given:
        raise BadInput("say why: the note is shown to everybody and kept in the audit record", code="missing_reason")
    return given
