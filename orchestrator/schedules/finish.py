"""Finish: when a slot's job has ended, its results are stored for later runs, reported and written out.

Every step can be repeated; the slot ends in the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from orchestrator.schedules.ending import end_slot
from orchestrator.schedules.options import Options
from orchestrator.schedules.outputs import Run, write_outputs
from orchestrator.schedules.report import Grade, report_of
from reasoning.errors import BadInput
from storage import datasets, jobs, reuse, schedules, slots
from storage.database import Database
from storage.objects import ObjectStore

log = structlog.get_logger()

REMEMBERED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Finisher:
    """Finishes slots. `grade` says whether an answer is the known one."""

    db: Database
    objects: ObjectStore
    clock: Callable[[], float]
    grade: Grade

    def finish(self, slot_id: int) -> str | None:
        """End a fired slot whose job has ended; the status it got, or None when there was nothing to end."""
        with self.db.read() as conn:
            slot = slots.get(conn, slot_id)
            job = jobs.get(conn, slot.job_id) if slot is not None and slot.job_id else None
            if slot is None or job is None or slot.status != "fired" or job.ended_at is None:
                return None
            schedule = schedules.get(conn, slot.schedule_id)
            dataset = datasets.get(conn, schedule.dataset_id) if schedule is not None else None
            previous = slots.previous_run(conn, slot)
        self._remember(job.id)
        options = Options.from_mapping(schedule.options) if schedule is not None else Options()
        report = report_of(self.db, job, previous, self.grade, options.alerts.accuracy_drop)
        status, reason, note = outcome(job, report, options.failed_share)
        columns: dict[str, Any] = {"report": report}
        if status == "done":
            try:
                columns["output_prefix"] = write_outputs(
                    self.db, self.objects, Run(slot, schedule, dataset, job), report
                )
            except BadInput as error:  # a template that a longer name no longer fits
                status, reason, note = "failed", error.code, error.message
        with self.db.write() as conn:
            if not end_slot(conn, slot_id, status, self.clock(), reason, note, **columns):
                return None
        log.info("A slot ended.", action=f"slot.{status}", slot_id=slot_id, job_id=job.id, reason=reason)
        return status

    def _remember(self, job_id: str) -> None:
        line: int | None = 0
        while line is not None:
            with self.db.write() as conn:
                line = reuse.remember(conn, job_id, line, REMEMBERED_AT_ONCE, self.clock())


def outcome(job: Any, report: dict[str, Any], failed_share: float) -> tuple[str, str, str]:
    """Status, word and sentence for a slot whose job has ended."""
    if job.status == "cancelled":
        return "cancelled", "cancelled", job.status_reason or "the job was cancelled"
    if job.status == "failed":
        first = (job.errors or [{}])[0]
        where = f"row {first['line']}: {first['message']}" if first.get("message") else job.status_reason
        return "failed", first.get("code") or "refused", f"the rows were refused; {where}"
    rows, failed = report["rows"], report["failed"]
    if job.status == "expired" or failed > failed_share * rows:
        return "failed", "unanswered", f"{failed} of {rows} rows have no answer"
    said = f"{report['computed']} of {rows} rows computed, {report['reused']} reused"
    if report["settings_changed"]:
        said += f", as {' and '.join(report['settings_changed'])} changed"
    return "done", "answered", said if not failed else f"{said}, {failed} without an answer"
