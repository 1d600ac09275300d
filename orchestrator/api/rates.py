"""Requests per minute of a project: counted in storage, so that all API processes share one count.

It defends the server against a script that runs wild, so what is refused once costs nothing more until the time
that was told has passed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from orchestrator import limits
from orchestrator.api.errors import Refused
from storage import rates
from storage.database import Database

FRESH_S = 5.0
"""A changed limit is noticed after this long."""


@dataclass(slots=True)
class _Door:
    """What this process remembers of a project."""

    limit: int | None
    """Requests per minute; also how many may come at once."""
    read_at: float
    closed_until: float = 0.0


@dataclass(slots=True)
class Rates:
    """The doors of all projects. Thread-safe: entries are replaced whole, and the count itself lies in storage."""

    _doors: dict[str, _Door] = field(default_factory=dict)

    def take(self, db: Database, project_id: str, now: float) -> None:
        """Count one request. Raises Refused (429) with `retry-after`."""
        door = self._doors.get(project_id)
        if door is None or now - door.read_at > FRESH_S:
            door = self._doors[project_id] = _Door(_limit(db, project_id), now)
        if door.limit is None:
            return
        wait_s = door.closed_until - now
        if wait_s <= 0:
            with db.write() as conn:
                wait_s = rates.take(conn, project_id, door.limit, now)
            door.closed_until = now + wait_s
        if wait_s > 0:
            message = f"this project may send {door.limit} requests a minute; try again in {wait_s:.1f} s"
            headers = {"retry-after": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}
            raise Refused(429, message, "rate_limit_exceeded", headers)


def _limit(db: Database, project_id: str) -> int | None:
    with db.read() as conn:
        limit = limits.limits_of(conn, project_id).get("requests_per_minute")
    return None if limit is None else int(limit)
