"""Requests that take their time: answered when due, given up at the deadline or when cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from reasoning.errors import ModelError, Transient
from workers.engine.protocol import Request

POLL_S = 0.005
"""How often cancel flags and deadlines are looked at."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: Request
    due: float
    settle: Callable[[], None]
    future: Future[Any]


class Delays:
    """At most `slots` requests in hand; a further one blocks its caller. One thread, started with the first."""

    def __init__(self, slots: int, clock: Callable[[], float]) -> None:
        self._slots = threading.Semaphore(slots)
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, request: Request, seconds: float, settle: Callable[[], None], future: Future[Any]) -> None:
        """Call `settle` in `seconds` from now, unless the request is given up before; at once when closed."""
        self._slots.acquire()
        with self._change:
            if self._closed:
                self._slots.release()
                settle()
                return
            self._waiting.append(_Waiting(request, self._clock() + seconds, settle, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="scripted-delays", daemon=True)
                self._thread.start()
            self._change.notify()

    def close(self) -> None:
        """Fail what is in hand with `Transient` and end the thread."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._waiting)
                self._change.wait(self._pause())
                ended = [w for w in self._waiting if self._over(w)]
                self._waiting = [w for w in self._waiting if w not in ended]
            for waiting in ended:
                self._end(waiting)
                self._slots.release()
            if self._closed:
                return

    def _pause(self) -> float:
        soonest = min((w.due for w in self._waiting), default=0.0)
        return 0.0 if self._closed else max(0.0, min(POLL_S, soonest - self._clock()))

    def _over(self, waiting: _Waiting) -> bool:
        request, now = waiting.request, self._clock()
        late = request.deadline is not None and now >= request.deadline
        return self._closed or late or now >= waiting.due or request.cancelled()

    def _end(self, waiting: _Waiting) -> None:
        if self._closed:
            waiting.future.set_exception(Transient("the engine was closed; the call runs again on another worker"))
        elif self._clock() >= waiting.due:
            waiting.settle()
        elif waiting.request.cancelled():
            waiting.future.set_exception(ModelError("the call was cancelled", code="cancelled"))
        else:
            waiting.future.set_exception(ModelError("the deadline passed before the call ended", code="deadline"))
