"""The orchestrator process: hears wake-ups, advances queries in batches, and sees to what no message brings.

Three threads around one inbox. The listener (a Celery worker on the advance queue) drops query ids into the
inbox; the loop drains it, advances and dispatches; the keeper reconciles, ingests and finalizes. Any number of
orchestrators may run: all of them advance, the one that holds the duty does the rest.
"""

from __future__ import annotations

import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog
from celery import Celery

from orchestrator.advance import Advanced, Outgoing, advance
from orchestrator.dispatch import dispatch
from orchestrator.finalize import finalize
from orchestrator.intake.ingest import ingest
from orchestrator.reconcile import reconcile
from reasoning.errors import Transient
from storage import duties, jobs
from storage.database import Database
from storage.objects import ObjectStore
from storage.settings import Settings
from workers import app as celery_app

log = structlog.get_logger()

BATCH = 256
"""Queries advanced in one transaction at most."""
IDLE_BELOW = 4
"""With fewer queries than this in a batch the fleet is taken to be idle."""
TICK_S = 0.25
"""Between two looks at the admission window when nothing else wakes the loop."""
DUTY = "orchestrator"
DUTY_LEASE_S = 6.0
"""A duty whose holder died is taken over after this long."""
BACK_OFF_S = 1.0
"""Pause after a broker or database that did not answer."""


def new_id(prefix: str) -> str:
    """A fresh public id such as `job_01c9...`: sorts by time to the second, cannot be guessed."""
    return f"{prefix}_{int(time.time()):08x}{secrets.token_hex(8)}"


@dataclass(slots=True)
class Orchestrator:
    """One orchestrator over its stores; `run` blocks until `stop` is set."""

    settings: Settings
    db: Database
    objects: ObjectStore
    app: Celery
    now: Callable[[], float] = time.time
    inbox: queue.SimpleQueue[list[int]] = field(default_factory=queue.SimpleQueue)
    stop: threading.Event = field(default_factory=threading.Event)
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}")
    _has_duty: bool = False

    def run(self) -> None:
        """Run loop and keeper until `stop` is set; the listener is started by `run_orchestrator`."""
        keepers = [
            threading.Thread(target=self._forever, args=(step, pause_s), name=name, daemon=True)
            for name, step, pause_s in (
                ("keeper", self.keep, self.settings.reconcile_s),
                ("intake", self.take_in, TICK_S),
                ("finalizer", self.finish_jobs, TICK_S),
            )
        ]
        for thread in keepers:
            thread.start()
        self._forever(self.step, 0.0)
        for thread in keepers:
            thread.join(timeout=10)
        if self._has_duty:
            with self.db.write() as conn:
                duties.drop(conn, DUTY, self.owner)

    def step(self) -> None:
        """Drain the inbox, advance what is in it, and admit more when there is room."""
        ids = self._drain()
        done = advance(self.db, ids, self.now(), idle=len(ids) < IDLE_BELOW) if ids else Advanced()
        self.send(done.outgoing)
        if self._has_duty and (done.ended or not ids):
            self.send(dispatch(self.db, self.settings, self.now()).outgoing)

    def keep(self) -> None:
        """Renew the duty and, while it is ours, reconcile."""
        with self.db.write() as conn:
            self._has_duty = duties.take(conn, DUTY, self.owner, self.now(), DUTY_LEASE_S)
        if self._has_duty:
            self.send(reconcile(self.db, self.settings, self._depth, self.now()).outgoing)

    def take_in(self) -> None:
        """Validate and ingest the jobs that wait for it, oldest first."""
        for job_id in self._jobs("validating"):
            ingest(self.db, self.objects, self.settings, job_id, self.now)

    def finish_jobs(self) -> None:
        """Write the files of the jobs that have nothing left to do."""
        for job_id in self._jobs("finalizing"):
            finalize(self.db, self.objects, job_id, self.now, new_id)

    def send(self, outgoing: Iterable[Outgoing]) -> None:
        """Wake workers for calls that are committed. What cannot be sent now is found by reconcile."""
        for message in outgoing:
            celery_app.send_calls(self.app, message.kind, message.model, list(message.call_ids), message.priority)

    def _jobs(self, status: str) -> list[str]:
        if not self._has_duty:
            return []
        with self.db.read() as conn:
            return [job.id for job in jobs.in_status(conn, status)]

    def _drain(self) -> list[int]:
        ids: set[int] = set()
        try:
            ids.update(self.inbox.get(timeout=TICK_S))
            while len(ids) < BATCH:
                ids.update(self.inbox.get_nowait())
        except queue.Empty:
            pass
        return list(ids)

    def _depth(self, model: str) -> int:
        return celery_app.queue_depth(self.app, model)

    def _forever(self, step: Callable[[], None], pause_s: float) -> None:
        while not self.stop.is_set():
            try:
                step()
            except Transient as error:
                log.warning(
                    "A store or the broker did not answer; trying again.",
                    action="orchestrator.transient",
                    error=str(error),
                )
                self.stop.wait(BACK_OFF_S)
            self.stop.wait(pause_s)
