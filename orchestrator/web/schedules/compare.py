"""One run against the run before: rows new, changed, removed and reused, and the answers that flipped."""

from __future__ import annotations

from starlette.responses import Response

from orchestrator.api.errors import NotFound
from orchestrator.schedules.flips import flips_of
from orchestrator.web.pages import Ask
from orchestrator.web.schedules.shapes import SLOT_SHAPES, SLOT_WORDS
from orchestrator.web.schedules.slots import schedule_of
from storage import slots

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
        found = flips_of(conn, slot, after_line=int(after) if after.isdigit() else 0, limit=FLIPS)
    return ask.page(
        "schedules/slot.html",
        schedule=row,
        slot=slot,
        report=slot.report or {},
        flips=found.rows[:FLIPS],
        forgotten=found.forgotten,
        following=found.rows[FLIPS - 1]["line"] if len(found.rows) > FLIPS else None,
        shape_name=SLOT_SHAPES[slot.status],
        word=SLOT_WORDS.get(slot.status, slot.status),
    )
