"""From messages to the engine: calls of many messages are claimed together, rendered, and handed over at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from reasoning.errors import ModelError, Transient
from reasoning.records import CallKind
from storage import calls
from storage.database import Database
from storage.workload import Known, Work, load_work
from workers.asks import Asked, Terms
from workers.engine.protocol import Engine, ImageLoader
from workers.generate import ask_generate
from workers.hand import Delivery, Hand, Held
from workers.judge import ask_check, ask_compare

_LOG = structlog.get_logger(__name__)

GROUP = 256
"""Calls claimed in one transaction at most, one message's calls apart."""
CLOSED_S = 60.0
"""What a closing worker gives back is sent when it ends, not before: it might get it again itself."""
RETRY_S = 1.0
"""Pause before calls that the database would not give are sent again."""

ASKS: Mapping[CallKind, Callable[[Engine, Work, Terms], Asked]] = {
    CallKind.GENERATE: ask_generate,
    CallKind.COMPARE: ask_compare,
    CallKind.CHECK: ask_check,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claiming:
    """How this worker claims: its id, the lease in seconds, and the limit of one call in the engine."""

    owner: str
    lease_s: float
    call_timeout_s: float
    clock: Callable[[], float] = time.time
    """Seconds since the epoch, as stored."""


class Intake:
    """One thread that takes deliveries in. What it claims stands in `hand`; what ended goes to `ended`."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        load_image: ImageLoader,
        hand: Hand,
        known: Known,
        claiming: Claiming,
        ended: Callable[[Held], None],
        give_back: Callable[[Delivery, float], None],
    ) -> None:
        """`give_back` sends a delivery's open calls again, so many seconds later, and settles it."""
        self._database = database
        self._engine = engine
        self._load_image = load_image
        self._hand = hand
        self._known = known
        self._claiming = claiming
        self._ended = ended
        self._give_back = give_back
        self._waiting: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._thread.start()

    def put(self, delivery: Delivery) -> None:
        """Take the delivery in as soon as there is room; returns at once."""
        with self._lock:
            if not self._closed:
                self._waiting.put(delivery)
                return
        self._give_back(delivery, CLOSED_S)

    def close(self) -> None:
        """Take nothing more in: deliveries that wait are given back. Calls in hand are not touched."""
        with self._lock:
            self._closed = True
            self._waiting.put(None)
        self._hand.close()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            group = self._group(first, self._hand.room())
            if self._closed:
                for delivery in group:
                    self._give_back(delivery, CLOSED_S)
            else:
                self._take(_by_id(group), alone=False)

    def _group(self, first: Delivery, room: int) -> list[Delivery]:
        """`first` and the deliveries waiting behind it, as far as there is room."""
        group = [first]
        most = min(room, GROUP) - len(first.call_ids)
        while most > 0 or self._closed:
            try:
                delivery = self._waiting.get_nowait()
            except queue.Empty:
                break
            if delivery is None:
                self._waiting.put(None)
                break
            group.append(delivery)
            most -= len(delivery.call_ids)
        return group

    def _take(self, by_id: Mapping[int, Delivery], *, alone: bool) -> None:
        try:
            work, need_alone = self._claim(list(by_id), alone=alone)
        except Transient as error:
            _LOG.warning("calls were not claimed", action="intake.transient", calls=len(by_id), error=str(error))
            for delivery in set(by_id.values()):
                self._give_back(delivery, RETRY_S)
        except Exception:
            _LOG.exception("calls cannot be read", action="intake.unreadable", calls=list(by_id))
            self._take_apart(by_id)
        else:
            taken = self._hold(work, by_id)
            self._settle_others(by_id, taken, need_alone)
            for held in taken:
                self._start(held)
            for call_id in need_alone:
                self._run_alone(call_id, by_id[call_id])

    def _take_apart(self, by_id: Mapping[int, Delivery]) -> None:
        """One row that cannot be read must not keep its neighbours from running."""
        for call_id, delivery in by_id.items():
            if len(by_id) > 1:
                self._take({call_id: delivery}, alone=False)
            else:
                delivery.settle((call_id,))

    def _claim(self, call_ids: Sequence[int], *, alone: bool) -> tuple[list[Work], list[int]]:
        """Lease the calls and load what they need; and those that must run alone."""
        claiming = self._claiming
        now = claiming.clock()
        with self._database.write() as conn:
            claimed = calls.claim(conn, call_ids, claiming.owner, now, claiming.lease_s, alone=alone)
            left = set(call_ids).difference(call.id for call in claimed)
            need = calls.need_alone(conn, left, now) if left and not alone else []
            return load_work(conn, claimed, self._known), need

    def _hold(self, work: Iterable[Work], by_id: Mapping[int, Delivery]) -> list[Held]:
        taken = [self._held(item, by_id[item.call.id]) for item in work]
        self._hand.add(taken)
        return taken

    def _held(self, work: Work, delivery: Delivery) -> Held:
        now = time.monotonic()
        limit = self._claiming.call_timeout_s
        own = limit if work.deadline_at is None else work.deadline_at - self._claiming.clock()
        return Held(work, delivery, now, now, now + min(own, limit), own < limit)

    def _settle_others(self, by_id: Mapping[int, Delivery], taken: Sequence[Held], alone: Sequence[int]) -> None:
        """Calls that ended, that somebody else holds or that nobody wants need no waiting for."""
        ours = {held.work.call.id for held in taken}.union(alone)
        for call_id, delivery in by_id.items():
            if call_id not in ours:
                delivery.settle((call_id,))

    def _start(self, held: Held) -> None:
        terms = Terms(self._load_image, held.cancelled, held.deadline)
        try:
            ask = ASKS.get(held.work.call.spec.kind)
            if ask is None:
                raise ModelError(f"no worker does {held.work.call.spec.kind.value} calls", code="unknown_kind")
            held.asked = ask(self._engine, held.work, terms)
        except Exception as error:
            held.error = error
            self._ended(held)
            return
        for future in held.asked.futures:
            future.add_done_callback(lambda _future: self._ended(held))

    def _run_alone(self, call_id: int, delivery: Delivery) -> None:
        """A call that was in hand at two deaths: claimed only once nothing else is in hand, which it may kill."""
        self._hand.wait_empty()
        if self._closed:
            self._give_back(delivery, CLOSED_S)
            return
        _LOG.warning("a call runs alone after two deaths", action="intake.alone", call=call_id)
        self._take({call_id: delivery}, alone=True)
        self._hand.wait_empty()


def _by_id(group: Iterable[Delivery]) -> dict[int, Delivery]:
    """The delivery of each open call; of two copies of a message the second waits for nothing."""
    by_id: dict[int, Delivery] = {}
    for delivery in group:
        for call_id in delivery.open_ids:
            if by_id.setdefault(call_id, delivery) is not delivery:
                delivery.settle((call_id,))
    return by_id
