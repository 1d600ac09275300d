"""One worker's calls from message to row: intake, engine, writer. Knows no Celery."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import structlog

from reasoning.errors import Transient
from storage import calls
from storage.calls import Loose
from storage.database import Database
from storage.workload import Known
from workers import messages
from workers.engine.protocol import Engine, ImageLoader
from workers.hand import Delivery, Hand
from workers.intake import CLOSED_S, Claiming, Intake
from workers.later import Later
from workers.publish import Publisher, Wakeup, advance_wakeups, calls_wakeup
from workers.writer import Writer

_LOG = structlog.get_logger(__name__)

HURRY_POLL_S = 0.1


class Pipeline:
    """Runs the calls of messages. Task threads call `run`; all else happens in two threads and the engine."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        load_image: ImageLoader,
        publisher: Publisher,
        model: str,
        claiming: Claiming,
    ) -> None:
        """`model` names the shared queue to which calls go back."""
        self.engine = engine
        self.hand = Hand(engine.info.slots)
        self.claiming = claiming
        self._database = database
        self._publisher = publisher
        self._queue = messages.calls_queue(model)
        self._later = Later(publisher.send)
        known = Known()
        self.writer = Writer(
            database=database,
            owner=claiming.owner,
            hand=self.hand,
            known=known,
            advance=self._advance,
            again=self._again,
            clock=claiming.clock,
        )
        self._intake = Intake(
            database=database,
            engine=engine,
            load_image=load_image,
            hand=self.hand,
            known=known,
            claiming=claiming,
            ended=self.writer.put,
            give_back=self._give_back,
        )

    def run(self, task: str, call_ids: Iterable[int], priority: int) -> None:
        """Have the calls of one message done; returns when each is written, dropped or given back."""
        delivery = Delivery(task, list(call_ids), priority)
        self._intake.put(delivery)
        delivery.wait()

    def finish(self, grace_s: float, hurry: threading.Event) -> None:
        """Take nothing more and let what is in hand end for `grace_s` seconds, or until `hurry`; give back the rest."""
        self._intake.close()
        end = time.monotonic() + grace_s
        while not self.hand.wait_empty(HURRY_POLL_S):
            if hurry.is_set() or time.monotonic() >= end:
                self.give_back_all()

    def close(self) -> None:
        """Send what was given back and close all. After `finish`, once no more messages come."""
        self._later.close()
        self.engine.close()
        self.writer.close()

    def give_back_all(self) -> None:
        """Release the leases of all calls in hand at once, so that other workers take them without delay."""
        held = {item.work.call.id: item for item in self.hand.all()}
        for item in held.values():
            item.lost = True
        try:
            with self._database.write() as conn:
                loose = calls.release(conn, held, self.claiming.owner, self.claiming.clock())
        except Transient as error:
            _LOG.warning("leases are left to run out", action="pipeline.unreleased", calls=len(held), error=str(error))
        else:
            for call in loose:
                self._again(call, held[call.id].work.priority, CLOSED_S)
            _LOG.info("calls were given back", action="pipeline.released", calls=len(loose))
        self.hand.remove(held)

    def _advance(self, query_ids: Iterable[int]) -> None:
        try:
            self._publisher.send(advance_wakeups(query_ids))
        except Transient as error:
            _LOG.warning("queries wait to be found by reconciling", action="pipeline.unadvanced", error=str(error))

    def _again(self, call: Loose, priority: str, pause_s: float) -> None:
        self._later.add(calls_wakeup(call.kind, call.model, [call.id], priority), pause_s)

    def _give_back(self, delivery: Delivery, pause_s: float) -> None:
        left = delivery.open_ids
        if left:
            self._later.add(Wakeup(delivery.task, {"call_ids": left}, self._queue, delivery.priority), pause_s)
            delivery.settle(left)
