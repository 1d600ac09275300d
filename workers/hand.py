"""The calls that this worker has in hand, and the messages that brought them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from storage.workload import Work
from workers.asks import Asked, Outcome


class Delivery:
    """The calls of one message. Its task thread waits until none is open, and acknowledges only then."""

    def __init__(self, task: str, call_ids: Sequence[int], priority: int) -> None:
        self.task = task
        self.priority = priority
        self.call_ids = tuple(dict.fromkeys(call_ids))
        self._open = set(self.call_ids)
        self._settled = threading.Event()
        self.settle(())

    @property
    def open_ids(self) -> list[int]:
        """Calls that are neither dropped, written nor given back."""
        return sorted(self._open)

    def settle(self, call_ids: Iterable[int]) -> None:
        """The message need not wait for these calls any more."""
        self._open.difference_update(call_ids)
        if not self._open:
            self._settled.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether all calls are settled, after at most `timeout` seconds."""
        return self._settled.wait(timeout)


@dataclass(slots=True, eq=False)
class Held:
    """One leased call from its claim until it is written, given back or lost. Times are monotonic seconds."""

    work: Work
    delivery: Delivery
    since: float
    renewed: float
    deadline: float
    """The engine gives the call up then."""
    own_deadline: bool
    """The deadline is the query's own, not the limit of a call."""
    lost: bool = False
    """Somebody else has the call, or nobody wants it any more: the engine should stop."""
    asked: Asked | None = None
    error: BaseException | None = None
    """Why the engine was not even asked."""
    outcome: Outcome | None = None
    ended: bool = False
    """The writer has taken it up."""

    def cancelled(self) -> bool:
        """The engine's cancel flag."""
        return self.lost


HELD_PER_SLOT = 2
"""Calls in hand per slot of the engine: what it works on, and as much again that it can begin at once."""


class Hand:
    """Calls in hand by id, at most about twice as many as the engine has slots. Thread-safe."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._limit = HELD_PER_SLOT * slots
        self._calls: dict[int, Held] = {}
        self._change = threading.Condition()
        self._open = True

    def __len__(self) -> int:
        return len(self._calls)

    def load(self) -> float:
        """The part of the engine's slots that the calls in hand can fill, at most 1."""
        return min(1.0, len(self._calls) / self._slots)

    def all(self) -> list[Held]:
        """A snapshot, oldest first."""
        with self._change:
            return list(self._calls.values())

    def add(self, held: Iterable[Held]) -> None:
        with self._change:
            self._calls.update((item.work.call.id, item) for item in held)

    def remove(self, call_ids: Iterable[int]) -> None:
        """Drop the calls and settle them with their messages."""
        with self._change:
            gone = [self._calls.pop(call_id) for call_id in call_ids if call_id in self._calls]
            self._change.notify_all()
        for item in gone:
            item.delivery.settle((item.work.call.id,))

    def room(self) -> int:
        """Wait until there is room for at least one call; 0 once closed."""
        with self._change:
            self._change.wait_for(lambda: not self._open or len(self._calls) < self._limit)
            return self._limit - len(self._calls) if self._open else 0

    def wait_empty(self, timeout: float | None = None) -> bool:
        """Whether no call is in hand, after at most `timeout` seconds."""
        with self._change:
            return self._change.wait_for(lambda: not self._calls, timeout)

    def close(self) -> None:
        """Take nothing more in."""
        with self._change:
            self._open = False
            self._change.notify_all()
