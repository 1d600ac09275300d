"""Requests per minute of a project, as a bucket of tokens that fills steadily.

Counted by each API process for itself: behind several of them a project may send that many times more. It
defends the server against a script that runs wild; what costs money has limits of its own in storage.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.api.errors import Refused

FRESH_S = 5.0
"""A changed limit is noticed after this long."""


@dataclass(slots=True)
class _Bucket:
    limit: int | None
    """Requests per minute; also how many may come at once."""
    read_at: float
    left: float
    filled_at: float


@dataclass(slots=True)
class Rates:
    """The buckets of all projects. Thread-safe."""

    _buckets: dict[str, _Bucket] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, project_id: str, now: float, limit_of: Callable[[str], int | None]) -> None:
        """Count one request. `limit_of` reads a project's limit. Raises Refused (429) with `retry-after`."""
        bucket = self._buckets.get(project_id)
        if bucket is None or now - bucket.read_at > FRESH_S:
            bucket = self._refresh(project_id, bucket, now, limit_of(project_id))
        if bucket.limit is None:
            return
        with self._lock:
            per_s = bucket.limit / 60
            bucket.left = min(float(bucket.limit), bucket.left + max(0.0, now - bucket.filled_at) * per_s)
            bucket.filled_at = now
            if bucket.left >= 1:
                bucket.left -= 1
                return
            wait_s = (1 - bucket.left) / per_s
        message = f"this project may send {bucket.limit} requests a minute; try again in {wait_s:.1f} s"
        headers = {"retry-after": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}
        raise Refused(429, message, "rate_limit_exceeded", headers)

    def _refresh(self, project_id: str, old: _Bucket | None, now: float, limit: int | None) -> _Bucket:
        if old is not None and old.limit == limit:
            old.read_at = now
            return old
        with self._lock:
            bucket = self._buckets[project_id] = _Bucket(limit, now, float(limit or 0), now)
        return bucket
