"""The heartbeat row: that a worker lives, what it does, and what people want of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import structlog

from storage import fleet
from storage.database import Database
from storage.transitions import move_worker
from workers.engine.device_memory import device_busy
from workers.hand import Held
from workers.memory import Memory
from workers.pipeline import Pipeline

_LOG = structlog.get_logger(__name__)

SHOWN_CALLS = 64
"""Calls in hand that the row lists at most; `stats.in_hand` counts them all."""


class Heartbeat:
    """Writes the row of one worker process. `beat` is called by a side thread."""

    def __init__(
        self,
        database: Database,
        pipeline: Pipeline,
        *,
        model: str,
        threads: int,
        obey: Callable[[str], None],
    ) -> None:
        """`obey` is told what is wanted, `run` or `drain`, whenever that changes."""
        self._database = database
        self._pipeline = pipeline
        self._threads = threads
        self._obey = obey
        self._wanted = "run"
        self._clock = pipeline.claiming.clock
        info = pipeline.engine.info
        self._memory = Memory(info.device)
        self._worker = fleet.NewWorker(pipeline.claiming.owner, model, asdict(info), info.slots, version("stagebeam"))

    def enroll(self) -> None:
        """Say what the worker is, in the row of its start or a new one. Raises Transient."""
        with self._database.write() as conn:
            fleet.enroll(conn, self._worker, self._clock())

    def move(self, state: str) -> None:
        """Say that the worker is ready, draining or stopped. Raises Transient."""
        with self._database.write() as conn:
            move_worker(conn, self._worker.id, state, self._clock())

    def beat(self) -> None:
        """One beat; obeys a changed wish after it. Raises Transient."""
        held = self._pipeline.hand.all()
        shown = [_shown(item, self._clock()) for item in held[:SHOWN_CALLS]]
        with self._database.write() as conn:
            wanted = fleet.beat(conn, self._worker.id, self._clock(), shown, self._stats(len(held)))
        if wanted is None:
            self.enroll()
            self.move("ready" if self._wanted == "run" else "draining")
        elif wanted != self._wanted:
            _LOG.info("a wish is obeyed", action="worker.obey", worker=self._worker.id, wanted=wanted)
            self._obey(wanted)
            self._wanted = wanted
            self.move("draining" if wanted == "drain" else "ready")

    def _stats(self, in_hand: int) -> dict[str, Any]:
        return {
            "in_hand": in_hand,
            "threads": self._threads,
            "memory": self._memory.look(),
            "device_busy": device_busy(self._worker.engine["device"]),
            "calls": dict(self._pipeline.writer.counts),
            "engine": dict(self._pipeline.engine.counters().values),
        }


def _shown(held: Held, now: float) -> dict[str, Any]:
    call = held.work.call
    age_s = time.monotonic() - held.since
    return {"id": call.id, "query_id": call.query_id, "stage": call.spec.stage, "since": now - age_s}
