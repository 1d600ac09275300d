"""The writer of roll-ups: every few seconds, the minutes that may have changed and the hours they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from storage import rollups
from storage.database import Database
from storage.rollups import HOUR_S, MINUTE_S, bucket

EVERY_S = 5.0
"""Between two writings; charts are no finer than a minute."""
LATE_S = 60.0
"""A transaction may commit this long after the moment that it noted as the end."""
AT_ONCE_S = 6 * HOUR_S
"""Time worked off per step after the writer was away, so that no transaction is long."""
BACK_S = 7 * 86400.0
"""How far back a store without roll-ups is worked up."""


@dataclass(slots=True)
class RollupWriter:
    """Keeps the roll-ups of one store. Any number may run: every bucket is computed whole and replaced."""

    db: Database
    _next_at: float = 0.0
    _reached: float | None = None

    def step(self, now: float) -> None:
        """Write what is due; cheap when nothing is. Call it about once a second."""
        if now < self._next_at:
            return
        start = self._start(now)
        end = min(start + AT_ONCE_S, now + MINUTE_S)
        with self.db.write() as conn:
            rollups.write_minutes(conn, start, end)
            rollups.write_hours(conn, start, end)
            if self._reached is None:
                rollups.forget(conn, now)
        self._reached = end
        self._next_at = now + EVERY_S if end > now else now

    def _start(self, now: float) -> float:
        """From where buckets may be wrong: a little back from where the last step ended."""
        reached = self._reached
        if reached is None:
            with self.db.read() as conn:
                reached = rollups.newest(conn) or rollups.first_end(conn) or now
        return bucket(max(now - BACK_S, min(reached, now) - LATE_S), MINUTE_S)
