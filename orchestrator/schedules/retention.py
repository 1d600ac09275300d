"""Retention: results of old slots are removed, as their schedule asks; the slots stay, and tell what they came to."""

from __future__ import annotations

import structlog

from orchestrator.schedules.options import Options
from orchestrator.schedules.outputs import remove_outputs
from storage import schedules, slots
from storage.database import Database
from storage.objects import ObjectStore

log = structlog.get_logger()

DAY_S = 86400.0
AT_ONCE = 200


def retain(db: Database, objects: ObjectStore, schedule_id: str, now: float) -> int:
    """Remove what a schedule no longer keeps; how many slots lost their results.

    Stored results of single rows stay, as later runs take them over.
    """
    with db.read() as conn:
        schedule = schedules.get(conn, schedule_id)
        if schedule is None:
            return 0
        options = Options.from_mapping(schedule.options)
        if options.keep_days is None and options.keep_runs is None:
            return 0
        before = None if options.keep_days is None else now - options.keep_days * DAY_S
        over = slots.with_old_outputs(conn, schedule_id, before=before, beyond=options.keep_runs, count=AT_ONCE)
    for slot in over:
        remove_outputs(objects, schedule, slot)
        with db.write() as conn:
            slots.set_report(conn, slot.id, slot.report, None)
    if over:
        log.info(
            "Results of old slots were removed.", action="schedule.retained", schedule_id=schedule_id, slots=len(over)
        )
    return len(over)
