"""Schedules over a settable clock: the real clock, starter, ingest, search, finalizer and finisher in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sqlalchemy import func, select

from orchestrator.datasets.spec import Line
from orchestrator.intake.ingest import ingest
from orchestrator.schedules.acts import run_now
from orchestrator.schedules.clock import tick
from orchestrator.schedules.due import next_due
from orchestrator.schedules.finish import Finisher
from orchestrator.schedules.options import Options
from orchestrator.schedules.records import plan_of
from orchestrator.schedules.report import same_words
from orchestrator.schedules.rule import Rule
from orchestrator.schedules.sources import Opened
from orchestrator.schedules.start import Starter
from storage import datasets, jobs, schedules, slots
from storage.database import Database
from storage.objects import ObjectStore
from storage.tables import Call, Query, Slot
from tests.orchestrator.driving import SETTINGS, Stack
from tests.schedules.clocks import at

NOON = at("2026-11-23T12:00")
IDS = count(1)
IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


def rows(size: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "custom_id": f"row-{number}",
            "question": f"How many balls are in picture {number}?",
            "images": [IMAGE],
            **more,
        }
        for number in range(size)
    ]


def new_id(prefix: str) -> str:
    return f"{prefix}_{next(IDS):06d}"


@dataclass
class Bench:
    """One dataset and its schedules; `lines` is what the source holds, or what it does when it is read."""

    db: Database
    objects: ObjectStore
    now: float = NOON
    lines: Sequence[dict[str, Any]] | Callable[[], Iterator[Line]] = field(default_factory=lambda: rows(3))
    dataset_id: str = ""

    def __post_init__(self) -> None:
        self.dataset_id = new_id("data")
        with self.db.write() as conn:
            values = {"id": self.dataset_id, "project_id": "default", "name": self.dataset_id, "source": {}}
            rest = {"mapping": {}, "policy": {"candidates": 2}, "model": "scripted", "identity": []}
            datasets.create(conn, {**values, **rest, "created_at": self.now, "updated_at": self.now})

    def clock(self) -> float:
        return self.now

    def schedule(self, rule: dict[str, Any] | None = None, **options: Any) -> str:
        """A schedule of every ten minutes that has decided everything up to now; its id."""
        schedule_id = new_id("sched")
        chosen = Rule.from_mapping(rule or {"kind": "interval", "every_s": 600})
        values = {
            "id": schedule_id,
            "project_id": "default",
            "name": schedule_id,
            "dataset_id": self.dataset_id,
            "rule": chosen.to_mapping(),
            "options": Options.from_mapping(options).to_mapping(),
            "owner": "local",
            "cursor_at": self.now,
            "created_at": self.now,
            "updated_at": self.now,
        }
        with self.db.write() as conn:
            schedules.create(conn, values)
            row = schedules.get(conn, schedule_id)
            schedules.change(conn, schedule_id, {"next_at": next_due(plan_of(row), self.now)}, self.now)
        return schedule_id

    def tick(self, seconds: float = 0.0) -> int:
        self.now += seconds
        return tick(self.db, self.now)

    def open_source(self, _dataset: Any, _due_at: float) -> Opened:
        if callable(self.lines):
            return Opened(self.lines())
        return Opened(iter(self.lines))

    def starter(self, owner: str = "one") -> Starter:
        stores = {"db": self.db, "objects": self.objects, "settings": SETTINGS, "clock": self.clock, "new_id": new_id}
        return Starter(**stores, open_source=self.open_source, owner=owner, default_model="scripted")

    def finisher(self) -> Finisher:
        return Finisher(self.db, self.objects, self.clock, same_words)

    def start(self) -> list[str]:
        """Start what may start; ids of the jobs."""
        with self.db.read() as conn:
            ids = slots.startable(conn, self.now, 100)
        return [job_id for slot_id in ids if (job_id := self.starter().start(slot_id)) is not None]

    def work(self, *job_ids: str) -> None:
        """Run jobs to their ends with the scripted engine."""
        stack = Stack(self.db, self.objects, now=self.now)
        for job_id in job_ids:
            ingest(self.db, self.objects, SETTINGS, job_id, self.clock)
        left = [job_id for job_id in job_ids if self.job(job_id).status != "failed"]
        if left:
            stack.run(*left)
        self.now = max(self.now, stack.now)

    def finish(self) -> list[str | None]:
        with self.db.read() as conn:
            ids = slots.finished(conn, 100)
        return [self.finisher().finish(slot_id) for slot_id in ids]

    def run(self, seconds: float = 600.0) -> Any:
        """Let time pass, and run the one slot that is due to its end; its row."""
        self.tick(seconds)
        self.work(*self.start())
        self.finish()
        return self.slots()[-1]

    def run_now(self, schedule_id: str, *, work: bool = True) -> Any:
        """Ask for a run by hand; its row, once it has ended."""
        with self.db.write() as conn:
            slot_id = run_now(conn, schedules.get(conn, schedule_id), self.now, "local")
        if work:
            self.work(*self.start())
            self.finish()
        return next(slot for slot in self.slots(schedule_id) if slot.id == slot_id)

    def slots(self, schedule_id: str | None = None) -> list[Any]:
        table = Slot.__table__
        statement = select(table).order_by(table.c.id)
        if schedule_id:
            statement = statement.where(table.c.schedule_id == schedule_id)
        with self.db.read() as conn:
            return list(conn.execute(statement))

    def statuses(self, schedule_id: str | None = None) -> list[str]:
        return [f"{slot.status}({slot.reason})" if slot.reason else slot.status for slot in self.slots(schedule_id)]

    def row(self, schedule_id: str) -> Any:
        with self.db.read() as conn:
            return schedules.get(conn, schedule_id)

    def job(self, job_id: str) -> Any:
        with self.db.read() as conn:
            return jobs.get(conn, job_id)

    def queries(self, job_id: str) -> list[Any]:
        table = Query.__table__
        with self.db.read() as conn:
            return list(conn.execute(select(table).where(table.c.job_id == job_id).order_by(table.c.line)))

    def calls(self, job_id: str) -> int:
        table = Call.__table__
        with self.db.read() as conn:
            return int(conn.execute(select(func.count()).where(table.c.job_id == job_id)).scalar_one())
