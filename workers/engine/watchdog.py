"""A device call that never returns cannot be interrupted: the watchdog ends the process instead.

Its supervisor starts it again, and the leases bring the work back.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger()

HUNG_EXIT = 70
"""Exit status of a process that its watchdog ended (EX_SOFTWARE)."""


def end_process() -> None:
    """Leave at once: no clean-up can be relied on while a device call hangs."""
    os._exit(HUNG_EXIT)


class Watchdog:
    """Calls `die` once a device call has lasted longer than `limit_s`."""

    def __init__(
        self, busy_since: Callable[[], float | None], limit_s: float, die: Callable[[], None] = end_process
    ) -> None:
        """`busy_since` tells when the call in hand began (`time.monotonic`), None when there is none."""
        self._busy_since = busy_since
        self._limit_s = limit_s
        self._die = die
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="engine-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._limit_s / 4)):
            since = self._busy_since()
            if since is not None and time.monotonic() - since > self._limit_s:
                log.error("A device call hangs; the process ends", action="engine.hung", limit_s=self._limit_s)
                self._die()
                return
