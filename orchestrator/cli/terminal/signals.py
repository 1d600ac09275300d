"""Signals to stop, as an event that a loop can wait for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def until_told_to_stop() -> Iterator[threading.Event]:
    """An event that the first signal to stop sets; the handlers of before come back at the end."""
    told = threading.Event()
    before = {number: signal.signal(number, lambda *_: told.set()) for number in STOP_SIGNALS}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
