"""Start: a pending slot becomes a job over the dataset as it is now. Slot and job are written in one transaction.

Reading a source may take long and stands outside of any transaction, under a lease on the slot. Whoever dies
meanwhile leaves a pending slot, which is begun anew; of two that read, one makes the job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog
from sqlalchemy import Connection

from orchestrator import limits
from orchestrator.intake.keeper import BlobKeeper
from orchestrator.schedules.blame import told
from orchestrator.schedules.content import revisions, salt
from orchestrator.schedules.ending import end_slot
from orchestrator.schedules.options import Options
from orchestrator.schedules.overlap import may_start
from orchestrator.schedules.snapshot import PURPOSE, Snapshot, snapshot
from orchestrator.schedules.sources import Opened
from orchestrator.schedules.words import shown
from orchestrator.submit import JobRequest, effective_policy, submit
from reasoning.errors import BadInput, Transient
from storage import datasets, duties, files, schedules, slots, transitions
from storage.database import Database
from storage.objects import ObjectStore, keys
from storage.settings import Settings

log = structlog.get_logger()

DUTY = "slot:"
"""Begins the name of the lease on a slot's source."""
LEASE_S = 60.0
BEAT_S = 15.0
PAUSE_S = 15.0
"""Between two tries at a source that did not answer."""
PATIENCE_S = 900.0
"""A source that did not answer for this long fails its slot."""


class OpenSource(Protocol):
    """Opens the source of a dataset row. Raises BadInput or Transient, also while its lines are read."""

    def __call__(self, dataset: Any, due_at: float) -> Opened: ...


class _Lost(Exception):
    """Another scheduler has the slot, or retention took the file of its rows; who finds it pending begins it anew."""


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts slots on behalf of one scheduler, `owner`."""

    db: Database
    objects: ObjectStore
    settings: Settings
    open_source: OpenSource
    clock: Callable[[], float]
    new_id: Callable[[str], str]
    owner: str
    default_model: str
    """Of datasets that name none."""

    def start(self, slot_id: int) -> str | None:
        """Begin the run of a pending slot; its job's id, or None when it is not its turn, failed or is another's."""
        found = self._take(slot_id)
        if found is None:
            return None
        slot, schedule, dataset = found
        try:
            return self._run(slot, schedule, dataset)
        except _Lost:
            return None
        except BadInput as error:
            self._fail(slot, error.code, told(dataset, error.code, error.message))
        except Transient as error:
            self._postpone(slot, dataset, error)
        except Exception as error:
            # Whatever a file of somebody else's brings up fails this slot, and the schedule's next one may do better.
            log.exception("A source broke its reader.", action="slot.source_defect", slot_id=slot_id)
            said = f"the source cannot be read: {type(error).__name__}: {error}"
            self._fail(slot, "source_unreadable", told(dataset, "source_unreadable", said))
        finally:
            with self.db.write() as conn:
                duties.drop(conn, _duty(slot_id), self.owner)
        return None

    def _take(self, slot_id: int) -> tuple[Any, Any, Any] | None:
        """Slot, schedule and dataset when the slot may begin and its lease is ours."""
        with self.db.write() as conn:
            slot = slots.get(conn, slot_id)
            if slot is None or not _its_turn(conn, slot):
                return None
            if not duties.take(conn, _duty(slot_id), self.owner, self.clock(), LEASE_S):
                return None
            schedule = schedules.get(conn, slot.schedule_id)
            return slot, schedule, datasets.get(conn, schedule.dataset_id) if schedule else None

    def _run(self, slot: Any, schedule: Any, dataset: Any) -> str:
        opened = self.open_source(dataset, slot.due_at)
        keeper = BlobKeeper(self.db, self.objects, schedule.project_id, self.clock)
        with snapshot(opened.lines, opened.roots, keeper, self.settings, self._beating(slot.id)) as lines:
            file_id, key = self._store(schedule, lines)
            with self.db.write() as conn:
                return self._fire(conn, slot, schedule, dataset, (file_id, key, lines))

    def _beating(self, slot_id: int) -> Callable[[], None]:
        """Renews the lease now and then. Raises _Lost when it is another's."""
        last = self.clock()

        def beat() -> None:
            nonlocal last
            now = self.clock()
            if now - last < BEAT_S:
                return
            last = now
            with self.db.write() as conn:
                if not duties.take(conn, _duty(slot_id), self.owner, now, LEASE_S):
                    raise _Lost

        return beat

    def _store(self, schedule: Any, lines: Snapshot) -> tuple[str, str | None]:
        """Id of the input file, and its key where it is a new one: lines that did not change are stored once."""
        with self.db.read() as conn:
            row = files.find_by_content(conn, schedule.project_id, lines.sha256, PURPOSE)
        if row is not None and row.expires_at is None:
            return str(row.id), None
        file_id = self.new_id("file")
        key = keys.upload(file_id)
        self.objects.put(key, lines.stream, media_type="application/jsonl")
        return file_id, key

    def _fire(
        self, conn: Connection, slot: Any, schedule: Any, dataset: Any, stored: tuple[str, str | None, Snapshot]
    ) -> str:
        schedules.lock(conn, [schedule.id])
        if not _its_turn(conn, slots.get(conn, slot.id)):
            raise _Lost
        now = self.clock()
        file_id, key, lines = stored
        allowed = limits.lock_project(conn, schedule.project_id)
        if key is None and files.get(conn, schedule.project_id, file_id) is None:
            raise _Lost
        if key is not None:
            limits.check_storage(conn, schedule.project_id, allowed, lines.size)
            due = f"{shown(slot.due_at, 'UTC')}Z".replace(" ", "T")
            files.create(
                conn,
                id=file_id,
                project_id=schedule.project_id,
                purpose=PURPOSE,
                filename=f"{dataset.name}-{due}.jsonl",
                bytes=lines.size,
                sha256=lines.sha256,
                object_key=key,
                now=now,
            )
        request = self._request(conn, slot, schedule, dataset, file_id)
        job_id = submit(conn, request, self.settings, now, self.new_id)
        if not transitions.move_slot(conn, slot.id, "fired", now, job_id=job_id, fired_at=now, reason=None, note=None):
            raise _Lost
        log.info("A slot was fired.", action="slot.fired", slot_id=slot.id, schedule_id=schedule.id, job_id=job_id)
        return job_id

    def _request(self, conn: Connection, slot: Any, schedule: Any, dataset: Any, file_id: str) -> JobRequest:
        options = Options.from_mapping(schedule.options)
        request = JobRequest(
            project_id=schedule.project_id,
            input_file_id=file_id,
            model=dataset.model or self.default_model,
            policy=dataset.policy,
            name=f"{schedule.name} {shown(slot.due_at, 'UTC')}Z",
            priority=slot.priority,
            on_bad_line=options.on_bad_row,
            source="schedule",
            source_ref=str(slot.id),
        )
        policy = effective_policy(request, self.settings)
        known = revisions(conn, request.model, policy)
        reuse = {"salt": salt(schedule.project_id, request.model, policy, known), "use": options.incremental}
        about = {"schedule_id": schedule.id, "slot_id": slot.id, "dataset_id": dataset.id, "revisions": known}
        return replace(request, options={"reuse": reuse, "schedule": about})

    def _fail(self, slot: Any, code: str, message: str) -> None:
        with self.db.write() as conn:
            end_slot(conn, slot.id, "failed", self.clock(), code, message)
        log.warning("A slot could not begin.", action="slot.failed", slot_id=slot.id, code=code)

    def _postpone(self, slot: Any, dataset: Any, error: Transient) -> None:
        now = self.clock()
        note = told(dataset, "source_unreachable", f"the source does not answer: {error}")
        with self.db.write() as conn:
            if now - max(slot.created_at, slot.due_at) > PATIENCE_S:
                end_slot(conn, slot.id, "failed", now, "source_unreachable", note)
            else:
                slots.postpone(conn, slot.id, now + PAUSE_S, "source_unreachable", f"{note}; it is tried again")
        log.warning("A source does not answer.", action="slot.postponed", slot_id=slot.id, error=str(error))


def _its_turn(conn: Connection, slot: Any) -> bool:
    if slot is None or slot.status != "pending":
        return False
    # Backfills and the slots of the rule do not wait for each other: priority decides which goes first.
    backfill = slot.origin == "backfill"
    others = [
        other
        for other in slots.open_of(conn, slot.schedule_id)
        if other.id != slot.id and (other.origin == "backfill") is backfill
    ]
    running = sum(other.status == "fired" for other in others)
    earlier = sum(other.status == "pending" and other.id < slot.id for other in others)
    return may_start(slot.overlap, running=running, earlier_waiting=earlier)


def _duty(slot_id: int) -> str:
    return f"{DUTY}{slot_id}"
