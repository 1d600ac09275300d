"""Messages that go out after a pause: calls that are to be tried again."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable

import structlog

from reasoning.errors import Transient
from workers.publish import Wakeup

_LOG = structlog.get_logger(__name__)


class Later:
    """Sends wake-ups when they are due, from one thread. What is lost with the process is found by reconciling."""

    def __init__(self, send: Callable[[Iterable[Wakeup]], None]) -> None:
        self._send = send
        self._heap: list[tuple[float, int, Wakeup]] = []
        self._order = itertools.count()
        self._change = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="later", daemon=True)
        self._thread.start()

    def add(self, wakeup: Wakeup, delay_s: float) -> None:
        """Send `wakeup` in `delay_s` seconds."""
        with self._change:
            heapq.heappush(self._heap, (time.monotonic() + delay_s, next(self._order), wakeup))
            self._change.notify()

    def close(self) -> None:
        """Send what is left at once and end."""
        with self._change:
            self._open = False
            self._change.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._open or self._heap:
            with self._change:
                if self._open:
                    self._change.wait(max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None)
                due = [heapq.heappop(self._heap)[2] for _ in range(len(self._heap)) if self._is_due()]
            if due:
                self._try_send(due)

    def _is_due(self) -> bool:
        return not self._open or self._heap[0][0] <= time.monotonic()

    def _try_send(self, due: list[Wakeup]) -> None:
        try:
            self._send(due)
        except Transient as error:
            _LOG.warning("wake-ups were not sent; reconciling sends them again", action="later.lost", error=str(error))
