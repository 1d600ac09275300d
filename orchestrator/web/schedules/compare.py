"""One run against the run before: rows new, changed, removed and reused, and the answers that flipped."""

from __future__ import annotations

from starlette.responses import Response

from orchestrator.api.errors import NotFound
from orchestrator.web.pages import Ask
from orchestrator.web.schedules.shapes import SLOT_SHAPES, SLOT_WORDS
from orchestrator.web.schedules.slots import schedule_of
from storage import reuse, slots

FLIPS = 50


def show(ask: Ask) -> Response:
    """The report of a slot, its flips part by part."""
    row = schedule_of(ask)
    number = ask.number("slot_id")
    after = ask.query.get("after", "")
    with ask.use.db.read() as conn:
        slot = slots.get(conn, number)
        if slot is None or slot.schedule_id != row.id:
            raise NotFound("slot", number)
        before = (slot.report or {}).get("previous_job_id")
        flips = (
            reuse.flips(conn, slot.job_id, before, after_line=int(after) if after.isdigit() else 0, limit=FLIPS + 1)
            if slot.job_id and before
            else []
        )
    return ask.page(
        "schedules/slot.html",
        schedule=row,
        slot=slot,
        report=slot.report or {},
        flips=flips[:FLIPS],
        following=flips[FLIPS - 1].line if len(flips) > FLIPS else None,
        shape_name=SLOT_SHAPES[slot.status],
        word=SLOT_WORDS.get(slot.status, slot.status),
    )
