"""Which jobs wait to be taken in or finished: one look at the database for all threads that ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from storage import jobs
from storage.database import Database


class Lookout:
    """Thread-safe. What it tells is at most `every_s` old; whoever acts on it reads the row again."""

    def __init__(self, db: Database, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._seen: dict[str, list[str]] = {}

    def jobs(self, status: str) -> list[str]:
        """Ids of jobs in `validating` or `finalizing`, oldest first."""
        with self._lock:
            if self._clock() - self._looked_at >= self._every_s:
                with self._db.read() as conn:
                    self._seen = jobs.to_move(conn)
                self._looked_at = self._clock()
            return list(self._seen.get(status, ()))
