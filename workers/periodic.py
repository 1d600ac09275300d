"""Side threads: something small, again and again, whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from reasoning.errors import Transient

_LOG = structlog.get_logger(__name__)


class Periodic:
    """Calls `action` every `every_s` seconds from a daemon thread, first at once. Errors are logged, never fatal."""

    def __init__(self, name: str, every_s: float, action: Callable[[], None]) -> None:
        self._name = name
        self._every_s = every_s
        self._action = action
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread after the round that it is in."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._action()
            except Transient as error:
                _LOG.warning("a side thread is tried again", action=f"{self._name}.transient", error=str(error))
            except Exception:
                _LOG.exception("a side thread met a bug and goes on", action=f"{self._name}.bug")
            self._stop.wait(self._every_s)
