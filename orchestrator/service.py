"""The orchestrator process: hears wake-ups, advances queries in batches, and sees to what no message brings.

Three threads around one inbox. The listener (a Celery worker on the advance queue) drops query ids into the
inbox; the loop drains it, advances and dispatches; the keeper reconciles, ingests and finalizes. Any number of
orchestrators may run: all of them advance, the one that holds the duty does the rest.
"""

from __future__ import annotations

import os
import queue
import secrets
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from celery import Celery
from celery.worker import state as celery_state
from kombu.exceptions import ChannelError, KombuError
from redis.exceptions import RedisError

from orchestrator import bulk
from orchestrator.advance import UNKNOWN, Advanced, Fleet, Outgoing, advance
from orchestrator.dispatch import dispatch
from orchestrator.expiry import remove_expired
from orchestrator.finalize import finalize
from orchestrator.fold import EVERY_S, fold
from orchestrator.intake.ingest import ingest
from orchestrator.intake.resolve import Verified
from orchestrator.lookout import Lookout
from orchestrator.outbox import Courier
from orchestrator.reconcile import reconcile, settle
from orchestrator.removal import remove_marked_rows
from orchestrator.rollup import RollupWriter
from reasoning.errors import Transient
from storage import duties, fleet
from storage.database import Database, open_database
from storage.objects import ObjectStore, open_objects
from storage.planning import Remembered
from storage.settings import Settings
from workers.app import declare_queues, make_app, start_serving
from workers.messages import ADVANCE, ADVANCE_QUEUE, calls_queue
from workers.publish import calls_wakeup

log = structlog.get_logger()

BATCH = 256
"""Queries advanced in one transaction at most."""
IDLE_BELOW = 4
"""With fewer queries than this in a batch a model's workers are taken to be idle, unless they say that they are not."""
TICK_S = 0.25
"""Between two looks at the database for what no message tells, such as jobs that somebody started."""
BUSY_TICK_S = 0.5
"""The same while queries advance. The admission window is so wide that its workers do not run dry meanwhile."""
ROOM = 32
"""After so many ended queries more are admitted at once."""
ROLLUP_S = 1.0
"""Between two looks of the roll-up writer, which knows itself when something is due."""
DUTY = "orchestrator"
DUTY_LEASE_S = 6.0
"""A duty whose holder died is taken over after this long."""
TELL_S = 1.0
"""Between two looks for webhook messages to send."""
EXPIRE_S = 30.0
"""Between two looks for files whose time is over."""
BULK_S = 1.0
"""Between two looks for bulk actions."""
SLICE_PAUSE_S = 0.05
"""Between two slices of bulk actions, so that searches come in between."""
BACK_OFF_S = 1.0
"""Pause after a broker or database that did not answer."""


def new_id(prefix: str) -> str:
    """A fresh public id such as `job_01c9...`: sorts by time to the second, cannot be guessed.

    Files are written `file-...`, as clients of hosted APIs know them.
    """
    return f"{prefix}{'-' if prefix == 'file' else '_'}{int(time.time()):08x}{secrets.token_hex(8)}"


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
    _fleet: Fleet = UNKNOWN
    """The live workers, as last looked up."""
    _dispatched_at: float = 0.0
    _room: int = 0
    """Queries that ended since the last look at the admission window."""
    _remembered: Remembered = field(default_factory=Remembered)
    _courier: Courier = field(init=False)
    _lookout: Lookout = field(init=False)
    _verified: Verified = field(default_factory=Verified)
    """Images that were checked once are not decoded again for the next job."""
    _rollups: RollupWriter = field(init=False)
    _taken_in: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._courier = Courier(self.db, self.settings, self.now)
        self._rollups = RollupWriter(self.db)
        self._lookout = Lookout(self.db, TICK_S)

    def run(self) -> None:
        """Run loop and keeper until `stop` is set; the listener is started by `run_orchestrator`."""
        keepers = [
            threading.Thread(target=self._forever, args=(step, pause_s), name=name, daemon=True)
            for name, step, pause_s in (
                ("keeper", self.keep, self.settings.reconcile_s),
                ("intake-1", self.take_in, TICK_S),
                ("intake-2", self.take_in, TICK_S),
                ("finalizer", self.finish_jobs, TICK_S),
                ("courier", self.tell, TELL_S),
                ("files", self.expire_files, EXPIRE_S),
                ("folder", self.tidy, EVERY_S),
                ("rollups", self.sum_up, ROLLUP_S),
                ("bulk", self.act_in_bulk, BULK_S),
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
        try:
            done = self._advance(ids) if ids else Advanced()
        except Transient:
            self.inbox.put(ids)
            raise
        self.send(done.outgoing)
        if done.over:
            settle(self.db, done.over, self.now())
        self._room += done.ended
        busy = bool(ids) and self._room < ROOM and time.monotonic() < self._dispatched_at + BUSY_TICK_S
        if self._has_duty and not busy:
            self._dispatched_at, self._room = time.monotonic(), 0
            self.send(dispatch(self.db, self.settings, self.now()).outgoing)

    def _advance(self, ids: list[int]) -> Advanced:
        idle = len(ids) < IDLE_BELOW
        return advance(self.db, ids, self.now(), idle=idle, fleet=self._fleet, remembered=self._remembered)

    def keep(self) -> None:
        """Renew the duty and, while it is ours, reconcile."""
        with self.db.write() as conn:
            self._has_duty = duties.take(conn, DUTY, self.owner, self.now(), DUTY_LEASE_S)
            self._fleet = fleet_of(fleet.live(conn, self.now(), 3 * self.settings.heartbeat_s))
        if self._has_duty:
            depth = partial(queue_depth, self.app)
            self.send(reconcile(self.db, self.settings, depth, self.now()).outgoing)

    def take_in(self) -> None:
        """Validate and ingest the jobs that wait for it, oldest first. Two lanes: a huge job delays no small one."""
        for job_id in self._jobs("validating"):
            with self._contained(job_id), self._alone_at(job_id) as free:
                if free:
                    ingest(
                        self.db,
                        self.objects,
                        self.settings,
                        job_id,
                        self.now,
                        stop=self.stop.is_set,
                        verified=self._verified,
                    )
                    self.inbox.put([])  # the loop looks for what may start now

    def finish_jobs(self) -> None:
        """Write the files of the jobs that have nothing left to do."""
        for job_id in self._jobs("finalizing"):
            with self._contained(job_id):
                finalize(self.db, self.objects, job_id, self.now, new_id)

    def tidy(self) -> None:
        """Let the calls of jobs that ended long ago leave the database."""
        if self._has_duty:
            fold(self.db, self.settings, self.now())

    def tell(self) -> None:
        """Send the webhook messages that are due."""
        if self._has_duty:
            self._courier.deliver_due()

    def expire_files(self) -> None:
        """Remove files whose time is over, and the rows of jobs whose results somebody removed."""
        if self._has_duty:
            remove_expired(self.db, self.objects, self.now())
            remove_marked_rows(self.db, self.objects)

    def sum_up(self) -> None:
        """Keep the sums behind the charts."""
        if self._has_duty:
            self._rollups.step(self.now())

    def act_in_bulk(self) -> None:
        """Take the actions that people want on many queries further."""
        if self._has_duty:
            bulk.step(self.db, self.now, lambda: self.stop.wait(SLICE_PAUSE_S))

    def send(self, outgoing: Iterable[Outgoing]) -> None:
        """Wake workers for calls that are committed. What cannot be sent now is found by reconcile."""
        wakeups = [calls_wakeup(item.kind, item.model, item.call_ids, item.priority, item.worker) for item in outgoing]
        if wakeups:
            self.app.publisher.send(wakeups)

    def _jobs(self, status: str) -> list[str]:
        return self._lookout.jobs(status) if self._has_duty else []

    def _drain(self) -> list[int]:
        ids: set[int] = set()
        try:
            ids.update(self.inbox.get(timeout=TICK_S))
            while len(ids) < BATCH:
                ids.update(self.inbox.get_nowait())
        except queue.Empty:
            pass
        return list(ids)

    @contextmanager
    def _alone_at(self, job_id: str) -> Iterator[bool]:
        """Whether this lane may ingest the job: not while the other one does."""
        with self._lock:
            free = job_id not in self._taken_in
            self._taken_in.add(job_id)
        try:
            yield free
        finally:
            if free:
                self._taken_in.discard(job_id)

    @contextmanager
    def _contained(self, job_id: str) -> Iterator[None]:
        """A job that cannot be taken in or finished is reported and tried again; the other jobs go on."""
        try:
            yield
        except Transient:
            raise
        except Exception:
            log.exception("A job could not be moved on; it is tried again.", action="job.stuck", job_id=job_id)
            self.stop.wait(BACK_OFF_S)

    def _forever(self, step: Callable[[], None], pause_s: float) -> None:
        while not self.stop.is_set():
            try:
                step()
            except Transient as error:
                log.warning("A store or the broker is away.", action="orchestrator.transient", error=str(error))
                self.stop.wait(BACK_OFF_S)
            except Exception:
                # A defect of ours. Rows are the truth, so trying again is safe, and the log says it loudly.
                log.exception("A round of the orchestrator failed.", action="orchestrator.defect")
                self.stop.wait(BACK_OFF_S)
            self.stop.wait(pause_s)


def fleet_of(workers: Sequence[Any]) -> Fleet:
    """Affinity pays only where there is a choice, and only towards a worker that can begin at once.

    A model is busy when its workers hold half of what they have slots for: a stage sent as several calls would only
    crowd out the stages of other queries.
    """
    held = {row.id: int((row.stats or {}).get("in_hand", 0)) for row in workers}
    roomy = {row.id: row.model for row in workers if held[row.id] < row.slots}
    room: Counter[str] = Counter()
    for row in workers:
        room[row.model] += row.slots - 2 * held[row.id]
    busy = frozenset(model for model, left in room.items() if left <= 0)
    return Fleet(max(1, len(workers)), roomy if len(workers) > 1 else {}, busy)


def queue_depth(app: Celery, model: str) -> int:
    """Messages for a model that no worker has taken yet. Raises Transient when the broker is away."""
    with broker_may_be_away(), app.connection_for_read() as connection:
        try:
            return int(connection.channel().queue_declare(calls_queue(model), passive=True).message_count)
        except ChannelError:
            return 0


@contextmanager
def broker_may_be_away() -> Iterator[None]:
    """What the broker's clients raise when it does not answer becomes Transient."""
    try:
        yield
    except (OSError, KombuError, RedisError) as error:
        raise Transient(f"the broker is away ({error})") from error


def run_orchestrator(settings: Settings) -> None:
    """Run one orchestrator until SIGTERM or SIGINT; blocks. Raises BadInput when no broker is set."""
    app = make_app(settings)
    orchestrator = Orchestrator(settings, open_database(settings.effective_database_url), open_objects(settings), app)

    @app.task(name=ADVANCE)  # type: ignore[untyped-decorator]
    def hear(query_ids: list[int]) -> None:
        orchestrator.inbox.put(query_ids)

    start_serving(app)
    # What is lost with this process is found by reconciling, as are messages that were heard and not worked off.
    declare_queues(app, [ADVANCE_QUEUE], acknowledge=False)
    loop = threading.Thread(target=orchestrator.run, name="loop", daemon=True)
    loop.start()
    listener = app.WorkController(
        hostname=f"orchestrator@{orchestrator.owner}",
        pool="solo",
        queues=[ADVANCE_QUEUE],
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
    )

    def stop(_number: int, _frame: object) -> None:
        celery_state.should_stop = os.EX_OK

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    log.info("The orchestrator is ready.", action="orchestrator.ready", owner=orchestrator.owner)
    try:
        listener.start()
    finally:
        orchestrator.stop.set()
        loop.join(timeout=15)
        orchestrator.db.close()
