"""One look at the whole system, shared by all who watch: ten viewers cost the database what one costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from orchestrator.api.documents import worker_state
from storage import overview, rollups
from storage.database import Database
from storage.overview import Waiting
from storage.rollups import Sums

KEPT_S = 2.0
"""A snapshot serves everybody for this long."""
BUSY_STATES = ("ready", "starting", "draining", "late")
"""States of a worker that can be expected to go on working."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A heartbeat row as pages show it."""

    row: Any
    state: str
    """idle, busy, starting, draining, late, lost or stopped."""
    age_s: float
    """Since the last heartbeat."""

    @property
    def in_hand(self) -> Sequence[Mapping[str, Any]]:
        return self.row.in_hand or ()

    @property
    def held(self) -> int:
        """Calls in hand; the row lists the first of them."""
        return int(self._stats.get("in_hand", len(self.in_hand)))

    @property
    def memory(self) -> Mapping[str, Mapping[str, int]]:
        """Bytes `used`, at `most` and in `total`, of the `process` and, on a GPU, of the `device`."""
        found: Mapping[str, Mapping[str, int]] = self._stats.get("memory") or {}
        return found

    @property
    def busy(self) -> int | None:
        """Percent of the time that the GPU worked of late; None where nobody measures that."""
        found = self._stats.get("device_busy")
        return None if found is None else int(found)

    @property
    def batch_fill(self) -> float | None:
        """Share of the engine's places that rows took since it started; None for engines without a batch."""
        engine = self._stats.get("engine") or {}
        places = engine.get("row_places")
        return engine.get("row_steps", 0) / places if places else None

    @property
    def counters(self) -> list[tuple[str, float]]:
        """What the worker and its engine count, by name."""
        found = [("threads", self._stats.get("threads"))]
        found += [(f"calls {name}", value) for name, value in (self._stats.get("calls") or {}).items()]
        found += sorted((self._stats.get("engine") or {}).items())
        return [(str(name), value) for name, value in found if isinstance(value, int | float)]

    @property
    def _stats(self) -> Mapping[str, Any]:
        return self.row.stats or {}

    @property
    def alive(self) -> bool:
        return self.state in ("idle", "busy", "starting", "draining", "late")


@dataclass(frozen=True, slots=True)
class ModelView:
    """The queue of one model: its work, and who is there to do it."""

    model: str
    waiting: int
    running: int
    queued_calls: int
    leased_calls: int
    oldest_s: float | None
    """Age of the oldest waiting query."""
    workers: int
    slots: int
    paused: Any | None
    """The row that says who paused it, when and why."""

    @property
    def forsaken(self) -> bool:
        """There is work and nobody to do it."""
        return self.workers == 0 and self.waiting + self.running > 0


@dataclass(frozen=True, slots=True)
class Notice:
    """A line at the top of every page."""

    kind: str
    """`paused` or `forsaken`."""
    model: str
    row: Any | None
    work: int = 0


@dataclass(frozen=True)
class Snapshot:
    """The system at one moment, as one project sees it."""

    at: float
    active: list[Waiting]
    attention: Sequence[Any]
    jobs: Mapping[str, int]
    calls: Sequence[Any]
    workers: list[WorkerView]
    models: list[ModelView]
    series: rollups.Series
    oldest: Waiting | None
    notices: list[Notice] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        return sum(job.waiting for job in self.active)

    @property
    def running(self) -> int:
        return sum(job.running for job in self.active)

    @property
    def retrying(self) -> int:
        """Open calls that were begun before: a worker died with them, or gave them back."""
        return sum(row.again for row in self.calls)

    @cached_property
    def last_hour(self) -> Sums:
        return self.series.total("hour")


class Snapshots:
    """Snapshots by project, made at most once in `KEPT_S` however many ask at once."""

    def __init__(self, db: Database, heartbeat_s: Callable[[], float] | float) -> None:
        self._db = db
        self._heartbeat_s = heartbeat_s if isinstance(heartbeat_s, float) else heartbeat_s()
        self._lock = threading.Lock()
        self._kept: dict[str, Snapshot] = {}

    def get(self, project_id: str, now: float) -> Snapshot:
        """The snapshot of the project, at most `KEPT_S` old."""
        kept = self._kept.get(project_id)
        if kept is None or not 0 <= now - kept.at < KEPT_S:
            with self._lock:
                kept = self._kept.get(project_id)
                if kept is None or not 0 <= now - kept.at < KEPT_S:
                    kept = self._take(project_id, now)
                    self._kept[project_id] = kept
        return kept

    def forget(self) -> None:
        """Look again at the next call; after a change that its author wants to see."""
        self._kept.clear()

    def _take(self, project_id: str, now: float) -> Snapshot:
        with self._db.read() as conn:
            active = overview.active(conn, project_id)
            calls = overview.open_calls(conn)
            workers = sorted((self._worker(row, now) for row in overview.workers(conn, now)), key=_standing)
            controls = {row.model: row for row in overview.controls(conn)}
            attention = overview.attention(conn, project_id, now)
            jobs = overview.jobs_by_status(conn, project_id)
            series = rollups.read(conn, now)
        models = _models(active, calls, workers, controls, now)
        oldest = min((job for job in active if job.since is not None), key=lambda job: job.since or 0.0, default=None)
        return Snapshot(now, active, attention, jobs, calls, workers, models, series, oldest, _notices(models))

    def _worker(self, row: Any, now: float) -> WorkerView:
        age = max(0.0, now - row.beat_at)
        state = worker_state(row, now, self._heartbeat_s)
        if state == "ready":
            state = "busy" if row.in_hand else "idle"
        return WorkerView(row, state, age)


def _standing(worker: WorkerView) -> tuple[bool, bool, str]:
    """Those that live first, then those that were lost, then those that stopped as they were told."""
    return not worker.alive, worker.state == "stopped", worker.row.id


def _models(
    active: Sequence[Waiting],
    calls: Sequence[Any],
    workers: Sequence[WorkerView],
    controls: Mapping[str, Any],
    now: float,
) -> list[ModelView]:
    names = {job.model for job in active} | {row.model for row in calls} | set(controls)
    names |= {worker.row.model for worker in workers if worker.alive}
    found = []
    for name in sorted(names):
        jobs = [job for job in active if job.model == name]
        since = min((job.since for job in jobs if job.since is not None), default=None)
        alive = [worker for worker in workers if worker.row.model == name and worker.alive]
        found.append(
            ModelView(
                model=name,
                waiting=sum(job.waiting for job in jobs),
                running=sum(job.running for job in jobs),
                queued_calls=sum(row.calls for row in calls if row.model == name and row.status == "queued"),
                leased_calls=sum(row.calls for row in calls if row.model == name and row.status == "leased"),
                oldest_s=None if since is None else now - since,
                workers=len(alive),
                slots=sum(worker.row.slots for worker in alive),
                paused=controls.get(name),
            )
        )
    return found


def _notices(models: Sequence[ModelView]) -> list[Notice]:
    paused = [Notice("paused", model.model, model.paused) for model in models if model.paused is not None]
    forsaken = [
        Notice("forsaken", model.model, None, model.waiting + model.running) for model in models if model.forsaken
    ]
    return forsaken + paused
