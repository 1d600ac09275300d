"""The scheduler process: four loops that decide, start and finish slots, and remove old runs. Any number may run.

Celery's beat is not used: it keeps its own state and fires by the clock of one process, and the truth about slots
is in storage.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog

from orchestrator.schedules.clock import tick
from orchestrator.schedules.finish import Finisher
from orchestrator.schedules.retention import Sweeper, retain
from orchestrator.schedules.start import Starter
from reasoning.errors import Transient
from storage import slots
from storage.database import Database
from storage.objects import ObjectStore

log = structlog.get_logger()

TICK_S = 1.0
BACK_OFF_S = 2.0
"""Pause after a store that did not answer."""
STARTS = 4
"""Sources read at a time."""
AT_ONCE = 50
"""Slots looked at per round."""


@dataclass(slots=True)
class Scheduler:
    """One scheduler over its stores; `run` blocks until `stop` is set."""

    db: Database
    objects: ObjectStore
    starter: Starter
    finisher: Finisher
    clock: Callable[[], float]
    stop: threading.Event = field(default_factory=threading.Event)
    _starting: set[int] = field(default_factory=set)

    def run(self) -> None:
        """Run the loops until `stop` is set; sources that are being read then are read to their end."""
        with ThreadPoolExecutor(STARTS, thread_name_prefix="starter") as pool:
            sweeper = Sweeper(self.db, self.objects, self.clock)
            steps = (("starts", lambda: self.start(pool)), ("ends", self.finish), ("sweeps", sweeper.sweep))
            threads = [threading.Thread(target=self._forever, args=(step,), name=name) for name, step in steps]
            for thread in threads:
                thread.start()
            self._forever(self.decide)
            for thread in threads:
                thread.join()

    def decide(self) -> None:
        """Decide the slots that are due."""
        tick(self.db, self.clock())

    def start(self, pool: ThreadPoolExecutor) -> None:
        """Hand slots whose time has come to the pool, each once."""
        with self.db.read() as conn:
            ready = slots.startable(conn, self.clock(), AT_ONCE)
        for slot_id in self._new(ready):
            self._starting.add(slot_id)
            pool.submit(self._start, slot_id)

    def finish(self) -> None:
        """Finish the slots whose jobs have ended, and remove what their schedules no longer keep."""
        with self.db.read() as conn:
            ended = slots.finished(conn, AT_ONCE)
        for slot_id in ended:
            try:
                self.finisher.finish(slot_id)
                self._retain(slot_id)
            except Transient:
                raise
            except Exception:
                log.exception("A slot could not be finished; it is tried again.", action="slot.stuck", slot_id=slot_id)
                self.stop.wait(BACK_OFF_S)

    def _retain(self, slot_id: int) -> None:
        with self.db.read() as conn:
            slot = slots.get(conn, slot_id)
        if slot is not None:
            retain(self.db, self.objects, slot.schedule_id, self.clock())

    def _new(self, ready: Iterable[int]) -> list[int]:
        return [slot_id for slot_id in ready if slot_id not in self._starting]

    def _start(self, slot_id: int) -> None:
        try:
            self.starter.start(slot_id)
        except Transient as error:
            log.warning("A store is away.", action="scheduler.transient", error=str(error))
        except Exception:
            log.exception("A slot could not be started; it is tried again.", action="slot.stuck", slot_id=slot_id)
        finally:
            self._starting.discard(slot_id)

    def _forever(self, step: Callable[[], None]) -> None:
        while not self.stop.is_set():
            try:
                step()
            except Transient as error:
                log.warning("A store is away.", action="scheduler.transient", error=str(error))
                self.stop.wait(BACK_OFF_S)
            except Exception:
                log.exception("A round of the scheduler failed.", action="scheduler.defect")
                self.stop.wait(BACK_OFF_S)
            self.stop.wait(TICK_S)
