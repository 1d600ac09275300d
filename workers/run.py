"""One worker process: engine, pipeline, side threads and the Celery consumer, started and stopped in order."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from types import FrameType
from typing import Any

import structlog
from celery import Celery
from celery.worker import state as celery_state

from reasoning.errors import Transient
from storage import schema
from storage.database import Database, open_database
from storage.objects import open_objects
from storage.settings import Settings
from workers import messages
from workers.app import declare_queues, make_app, start_serving
from workers.engine.config import parse_settings
from workers.engine.protocol import Engine
from workers.engine.registry import open_engine
from workers.heartbeat import Heartbeat
from workers.images import StoredImages
from workers.intake import Claiming
from workers.leases import LeaseKeeper, Watchdog
from workers.periodic import Periodic
from workers.pipeline import Pipeline
from workers.starting import starting
from workers.tasks import register_tasks
from workers.visibility import VisibilityRenewal

_LOG = structlog.get_logger(__name__)

MOST_THREADS = 32
"""Messages in hand at most. A busy message brings a handful of calls, so this fills far more slots."""
FINISH_S = 15.0
"""Calls in hand may end for so long after the first SIGTERM, then they are given back: supervisors wait 20 s."""
DATABASE_CONNECTIONS = 4
"""Intake, writer, leases and heartbeat: one transaction each at a time."""
WATCHDOG_S = 5.0


def run_worker(settings: Settings) -> None:
    """Run a worker until SIGTERM or SIGINT; blocks. A second signal gives back what is in hand at once.

    Raises:
        BadInput: no broker is set, the database is of another revision, or model or engine settings are refused.
        Transient: the database is away.
    """
    app = make_app(settings)
    schema.check(settings.effective_database_url)
    owner = worker_id(settings.worker_name, time.time())
    with starting(settings, owner, served_model(settings.model)):
        worker = Worker(settings, open_engine(settings.model, engine_options(settings)), app, owner)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, worker.on_signal)
    worker.run()


def served_model(model: str) -> str:
    """The model as jobs name it: settings of the scripted engine are no part of it."""
    return "scripted" if model.startswith("scripted:") else model


def engine_options(settings: Settings) -> dict[str, Any]:
    """What the settings say about the engine, `engine_options` last. Raises BadInput."""
    options: dict[str, Any] = {"slots": settings.slots}
    if served_model(settings.model) != "scripted" and not settings.model.startswith("openai:"):
        options |= {"device": settings.device, "dtype": settings.dtype}
    return options | parse_settings(settings.engine_options)


def worker_id(name: str, started_at: float) -> str:
    """`name@host:pid:start`: unique to one life of the process."""
    return f"{name or 'worker'}@{socket.gethostname()}:{os.getpid()}:{int(started_at * 1000)}"


class Worker:
    """One worker. `run` blocks, in the main thread or another; `stop` may be called from anywhere."""

    def __init__(self, settings: Settings, engine: Engine, app: Celery, owner: str) -> None:
        self.id = owner
        self.model = served_model(settings.model)
        self._settings = settings
        self._app = app
        self._database: Database = open_database(settings.effective_database_url, pool_size=DATABASE_CONNECTIONS)
        self.pipeline = Pipeline(
            database=self._database,
            engine=engine,
            load_image=StoredImages(self._database, open_objects(settings)),
            publisher=self._app.publisher,
            model=self.model,
            claiming=Claiming(owner=self.id, lease_s=settings.lease_s, call_timeout_s=settings.call_timeout_s),
        )
        self._threads = max(1, min(engine.info.slots, MOST_THREADS))
        self._queues = [messages.direct_queue(self.id), messages.calls_queue(self.model)]
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        register_tasks(self._app, self.pipeline)
        declare_queues(self._app, self._queues)
        self._app.steps["consumer"].add(VisibilityRenewal)
        self._controller = self._app.WorkController(
            hostname=self.id.partition(":")[0],
            pool="threads",
            concurrency=self._threads,
            queues=self._queues,
            without_mingle=True,
            without_gossip=True,
            without_heartbeat=True,
        )
        self._heartbeat = Heartbeat(
            self._database, self.pipeline, model=self.model, threads=self._threads, obey=self._obey
        )

    def run(self) -> None:
        """Consume until `stop`. Raises Transient when the database is away at the start."""
        self._heartbeat.enroll()
        self._heartbeat.move("ready")
        keeper = LeaseKeeper(self._database, self.pipeline.hand, self.pipeline.claiming)
        side = [
            Periodic("leases", keeper.look_s, keeper.look),
            Periodic("heartbeat", self._settings.heartbeat_s, self._heartbeat.beat),
            Periodic("watchdog", WATCHDOG_S, Watchdog(self.pipeline.hand).look),
        ]
        start_serving(self._app)
        stopper = threading.Thread(target=self._finish, name="stopper", daemon=True)
        stopper.start()
        _LOG.info("worker is ready", action="worker.ready", worker=self.id, model=self.model, threads=self._threads)
        try:
            self._controller.start()
        finally:
            self.stop()
            stopper.join()
            for thread in side:
                thread.close()
            self._close()

    def stop(self, *, hurry: bool = False) -> None:
        """Take no more messages and end once what is in hand is written; with `hurry` give it back at once."""
        celery_state.should_stop = os.EX_OK
        if hurry:
            self._hurry.set()
        self._stopping.set()

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """SIGTERM or SIGINT: the first is a request, the second an order."""
        self.stop(hurry=self._stopping.is_set())

    def _finish(self) -> None:
        """Empty the hand while Celery waits for its task threads."""
        self._stopping.wait()
        self._tell("draining")
        self.pipeline.finish(FINISH_S, self._hurry)

    def _close(self) -> None:
        self.pipeline.close()
        self._tell("stopped")
        self._app.publisher.close()
        self._database.close()
        celery_state.should_stop = None
        _LOG.info("worker has stopped", action="worker.stopped", worker=self.id)

    def _tell(self, state: str) -> None:
        try:
            self._heartbeat.move(state)
        except Transient as error:
            _LOG.warning("the row of this worker is out of date", action="worker.untold", state=state, error=str(error))

    def _obey(self, wanted: str) -> None:
        """Drain: leave the queues, finish what is in hand, stay until told otherwise. Raises Transient."""
        consumer = getattr(self._controller, "consumer", None)
        if consumer is None:
            raise Transient("the wish came before there was a consumer; the next beat obeys it")
        change = consumer.cancel_task_queue if wanted == "drain" else consumer.add_task_queue
        for name in self._queues:
            consumer.call_soon(change, name)
