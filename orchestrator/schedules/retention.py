"""Retention: what a schedule no longer keeps of old runs is removed; their slots stay, and tell what they came to.

Of a run that is kept no longer, these go: its results and files in the object store, and the rows of its job with
their calls and traces. A row whose result a kept run took over stays with its trace, and goes when the last such run
does. The run that the next one will be compared with stays whole, however old it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from orchestrator import limits
from orchestrator.schedules.options import Options
from orchestrator.schedules.outputs import remove_outputs
from orchestrator.schedules.snapshot import PURPOSE
from orchestrator.schedules.start import DUTY
from storage import duties, files, retention, schedules
from storage.database import Database
from storage.objects import ObjectStore

log = structlog.get_logger()

DAY_S = 86400.0
RUNS_AT_ONCE = 200
ROWS_AT_ONCE = 500
SCHEDULES_AT_ONCE = 500
EVERY_S = 3600.0
"""Between two looks at schedules whose runs grow too old while none of theirs ends."""


def retain(db: Database, objects: ObjectStore, schedule_id: str, now: float) -> int:
    """Remove what a schedule no longer keeps; how many runs that were.

    Every step can be repeated: a run is marked when its results are gone, and the rows of marked jobs are looked for
    at every call that marks one, and in `Sweeper`.
    """
    with db.read() as conn:
        schedule = schedules.get(conn, schedule_id)
    runs = 0 if schedule is None else _mark_old(db, objects, schedule, now)
    if runs:
        _remove_rows(db, objects, schedule_id)
    return runs


@dataclass(slots=True)
class Sweeper:
    """Looks at all schedules every hour: days pass also where nothing runs, and a process may have died half-way.

    So do schedules that are deleted, and schedulers that die while they read a source: rows that nobody needs any more
    are left behind.
    """

    db: Database
    objects: ObjectStore
    clock: Callable[[], float]
    _next_at: float = field(default=0.0)

    def sweep(self) -> None:
        """Retain every schedule that keeps less than everything, when the hour has passed."""
        if self.clock() < self._next_at:
            return
        self._next_at = self.clock() + EVERY_S
        after = ""
        while True:
            with self.db.read() as conn:
                page = schedules.all_after(conn, after, SCHEDULES_AT_ONCE)
            if not page:
                break
            after = page[-1].id
            for schedule in page:
                if _bounded(Options.from_mapping(schedule.options)):
                    _mark_old(self.db, self.objects, schedule, self.clock())
                    _remove_rows(self.db, self.objects, schedule.id)
        self._tidy()

    def _tidy(self) -> None:
        with self.db.write() as conn:
            duties.forget(conn, DUTY, self.clock() - EVERY_S)
            left = retention.left_behind(conn)
        if left:
            _remove_rows(self.db, self.objects, None)


def _bounded(options: Options) -> bool:
    return options.keep_days is not None or options.keep_runs is not None


def _mark_old(db: Database, objects: ObjectStore, schedule: Any, now: float) -> int:
    options = Options.from_mapping(schedule.options)
    if not _bounded(options):
        return 0
    before = None if options.keep_days is None else now - options.keep_days * DAY_S
    with db.read() as conn:
        old = retention.beyond(conn, schedule.id, before=before, newest=options.keep_runs, count=RUNS_AT_ONCE)
    for slot in old:
        remove_outputs(objects, schedule, slot)
        unused = _mark(db, schedule, slot, now)
        for key in unused:
            objects.delete(key)
    if old:
        log.info("Old runs were removed.", action="schedule.retained", schedule_id=schedule.id, slots=len(old))
    return len(old)


def _mark(db: Database, schedule: Any, slot: Any, now: float) -> set[str]:
    """Mark one run and its files as removed; keys of the objects that no file needs any more."""
    with db.write() as conn:
        limits.lock_project(conn, schedule.project_id)
        job = retention.mark(conn, slot.id, slot.job_id, now)
        if job is None:
            return set()
        doomed = [job.output_file_id, job.error_file_id]
        source = files.get(conn, job.project_id, job.input_file_id) if job.input_file_id else None
        if source is not None and source.purpose == PURPOSE and not retention.reads_file(conn, source.id):
            doomed.append(source.id)
        gone = [files.delete(conn, job.project_id, file_id, now) for file_id in doomed if file_id is not None]
        freed = {row.object_key for row in gone if row is not None}
        return freed - files.in_use(conn, freed)


def _remove_rows(db: Database, objects: ObjectStore, schedule_id: str | None) -> None:
    rows = sum(_remove_kind(db, objects, schedule_id, taken_over=taken_over) for taken_over in (True, False))
    if rows:
        log.info("Rows of old runs were removed.", action="schedule.rows_removed", schedule_id=schedule_id, rows=rows)


def _remove_kind(db: Database, objects: ObjectStore, schedule_id: str | None, *, taken_over: bool) -> int:
    place, rows = ("", 0), 0
    while True:
        with db.write() as conn:
            step = retention.remove_rows(conn, schedule_id, place, ROWS_AT_ONCE, taken_over=taken_over)
        if step is None:
            return rows
        place, rows = (step.job_id, step.line), rows + step.rows
        for key in step.parts:
            objects.delete(key)
