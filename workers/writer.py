"""From results to rows: what ended is written in groups, once, and the queries are sent on to be planned."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from reasoning.errors import InvariantBroken, ModelError, Transient
from reasoning.records import Call, CallError, CallStatus, outcome_to_json
from storage import calls
from storage.calls import Ended, Loose, Written
from storage.database import Database
from storage.hot import is_storable
from storage.workload import Known
from workers.asks import Outcome
from workers.hand import Hand, Held

_LOG = structlog.get_logger(__name__)

GROUP = 256
"""Calls written in one transaction at most."""
PACE_S = 0.5
"""From one write to the next while the engine has all the calls that it can work on, unless a group is full: on a
small model the machine's time is the engine's, and a group costs the database, the broker and the planner little more
than a call. With fewer calls in hand it is shorter in proportion, as what waits could be using free slots."""
ATTEMPTS = 3
"""Leases after which a retryable error of the model stands."""
RETRY_S = 0.5
"""Pause before a call is tried again; doubled with each attempt."""
LONGEST_RETRY_S = 30.0
STORE_RETRY_S = 0.2
"""Pause before a write that failed is tried again; doubled up to `LONGEST_STORE_RETRY_S`."""
LONGEST_STORE_RETRY_S = 5.0
URGENT = "interactive"
"""Priority of jobs that somebody waits for."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The call is given back and tried again after a pause."""

    pause_s: float


class Writer:
    """One thread that settles calls: those that end soon after the last write go together.

    A slow call holds back nobody. Nothing waits when the engine would have to wait with it, nor an interactive call.
    """

    def __init__(
        self,
        *,
        database: Database,
        owner: str,
        hand: Hand,
        known: Known,
        advance: Callable[[Iterable[int]], None],
        again: Callable[[Loose, str, float], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`advance` gets query ids to be planned; `again` a released call, its job's priority and a pause."""
        self._database = database
        self._owner = owner
        self._hand = hand
        self._known = known
        self._advance = advance
        self._again = again
        self._clock = clock
        self._ended: queue.SimpleQueue[Held | None] = queue.SimpleQueue()
        self._enough = threading.Event()
        """Waiting for more calls to end would be of no use."""
        self._written_at = float("-inf")
        self._stop = threading.Event()
        self.counts: Counter[str] = Counter()
        """Calls by fate since start: done, failed, cancelled, wasted, retried."""
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def put(self, held: Held) -> None:
        """A request of the call ended; called from any thread, once per request."""
        if held.asked is None or all(future.done() for future in held.asked.futures):
            self._ended.put(held)
            if held.work.priority == URGENT or self._ended.qsize() >= min(GROUP, len(self._hand)):
                self._enough.set()

    def close(self) -> None:
        """Write what has ended so far and end."""
        self._stop.set()
        self._ended.put(None)
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        while (group := self._next()) is not None:
            if group:
                self._settle(group)

    def _next(self) -> list[Held] | None:
        """What has ended, at least one; None after `close`."""
        pace = PACE_S * self._hand.load()
        self._enough.wait(max(0.0, self._written_at + pace - time.monotonic()))
        self._enough.clear()
        item = self._ended.get()
        group: list[Held] = []
        while item is not None:
            if not item.ended:  # the last two requests of a call may both have found all done
                item.ended = True
                group.append(item)
            if len(group) >= GROUP or self._ended.empty():
                return group
            item = self._ended.get()
        if group:
            self._ended.put(None)
            return group
        return None

    def _settle(self, group: Sequence[Held]) -> None:
        try:
            self._write(group, {held.work.call.id: settlement(held) for held in group})
        except Exception as error:
            _LOG.exception("outcomes cannot be written", action="writer.unwritable", calls=len(group))
            for held in group:
                if len(group) > 1:
                    self._settle([held])
                else:
                    self._write([held], {held.work.call.id: _internal_error(held, error)})

    def _write(self, group: Sequence[Held], settled: Mapping[int, Ended | Retry | None]) -> None:
        """Write, release, send on, and only then let go of the calls."""
        ended = [item for item in settled.values() if isinstance(item, Ended)]
        retries = {call_id: item for call_id, item in settled.items() if isinstance(item, Retry)}
        stored = self._store(ended, retries)
        if stored is not None:
            written, loose = stored
            self._learn(group, written)
            self._count(ended, written, loose)
            self._advance({item.query_id for item in ended if item.id in written.written})
            priorities = {held.work.call.id: held.work.priority for held in group}
            for item in loose:
                self._again(item, priorities[item.id], retries[item.id].pause_s)
        self._hand.remove(settled)
        self._written_at = time.monotonic()

    def _store(self, ended: Sequence[Ended], retries: Mapping[int, Retry]) -> tuple[Written, list[Loose]] | None:
        """One transaction, tried until the database takes it; None when the worker stops before it does."""
        pause = STORE_RETRY_S
        while True:
            now = self._clock()
            try:
                with self._database.write() as conn:
                    written = calls.finish(conn, self._owner, ended, now)
                    return written, calls.release(conn, retries, self._owner, now) if retries else []
            except Transient as error:
                _LOG.warning("outcomes wait for the database", action="writer.transient", error=str(error))
                if self._stop.wait(pause):
                    return None
                pause = min(2 * pause, LONGEST_STORE_RETRY_S)

    def _learn(self, group: Sequence[Held], written: Written) -> None:
        """The next call of a query often comes to the worker that wrote the last: it need not read it back."""
        for held in group:
            call = held.work.call
            candidates = held.outcome.candidates if held.outcome is not None else ()
            stored = call.id in written.written and all(is_storable(item.text) for item in candidates)
            if candidates and stored:
                record = Call(call.spec, CallStatus.DONE, candidates)
                self._known.outcomes.put((call.job_id, call.query_id, call.spec.key), record)

    def _count(self, ended: Sequence[Ended], written: Written, loose: Sequence[Loose]) -> None:
        self.counts.update(item.status.value for item in ended if item.id in written.written)
        self.counts["wasted"] += len(written.wasted)
        self.counts["retried"] += len(loose)


def settlement(held: Held) -> Ended | Retry | None:
    """What becomes of a call whose requests ended: an outcome or error to write, another try, or nothing.

    Nothing is written for a lost call that the engine gave up; a lost call that ended all the same is tried to
    be written, so that its tokens are counted as waste.
    """
    try:
        held.outcome = outcome = _outcome(held)
    except Transient as error:
        _LOG.info("a call is tried again", action="call.retry", call=held.work.call.id, error=str(error))
        return None if held.lost else _retry(held)
    except ModelError as error:
        return None if held.lost else _model_error(held, error)
    except Exception as error:
        _LOG.exception("a call failed by a bug", action="call.bug", call=held.work.call.id, key=held.work.call.spec.key)
        return _internal_error(held, error)
    return _ended(
        held,
        CallStatus.DONE,
        outcome=outcome_to_json(outcome.candidates, outcome.verdict),
        usage=outcome.usage.to_json(),
    )


def _outcome(held: Held) -> Outcome:
    if held.asked is None:
        raise held.error or InvariantBroken(f"call {held.work.call.id} ended before it was asked")
    return held.asked.read([future.result() for future in held.asked.futures])


def _model_error(held: Held, error: ModelError) -> Ended | Retry:
    if error.retryable and held.work.call.attempts < ATTEMPTS:
        return _retry(held)
    code = error.code
    if code == "deadline" and not held.own_deadline:
        code = "call_timeout"
    return _failed(held, CallError(code, error.message, error.retryable, held.work.call.attempts))


def _internal_error(held: Held, error: Exception) -> Ended:
    message = f"{type(error).__name__}: {error}. This is a bug in stagebeam; the worker's log has the whole story."
    return _failed(held, CallError("internal_error", message, attempts=held.work.call.attempts))


def _retry(held: Held) -> Retry:
    return Retry(min(LONGEST_RETRY_S, RETRY_S * 2.0 ** min(held.work.call.attempts, 10)))


def _failed(held: Held, error: CallError) -> Ended:
    return _ended(held, CallStatus.FAILED, error=error.to_json())


def _ended(held: Held, status: CallStatus, **columns: Mapping[str, Any]) -> Ended:
    call = held.work.call
    return Ended(call.id, call.query_id, call.job_id, status, **columns)
