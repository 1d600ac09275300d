"""Leases of calls in hand: renewed while the engine works, and noticed when they are gone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import structlog

from storage import calls
from storage.database import Database
from workers.hand import Hand, Held
from workers.intake import Claiming

_LOG = structlog.get_logger(__name__)

LOOK_S = 1.0
"""How often the rows of calls in hand are looked at: a cancelled call stops about so long after."""
RENEWALS_PER_LEASE = 3
HANG_GRACE_S = 30.0
"""An engine checks deadlines at every step; one that has not after so many seconds hangs in a device call."""
HANG_EXIT_CODE = 70
"""`EX_SOFTWARE`: tells the supervisor to start the worker anew."""


class LeaseKeeper:
    """Renews leases at a third of their length and raises the cancel flag of calls that are no longer ours.

    Calls that end within a second cost nothing here.
    """

    def __init__(self, database: Database, hand: Hand, claiming: Claiming) -> None:
        self._database = database
        self._hand = hand
        self._claiming = claiming
        self.look_s = min(LOOK_S, claiming.lease_s / RENEWALS_PER_LEASE / 2)
        """Seconds between two rounds."""

    def look(self) -> None:
        """One round. Raises Transient when the database is away; the leases run on meanwhile."""
        now = time.monotonic()
        old = {item.work.call.id: item for item in self._hand.all() if now - item.since >= self.look_s}
        if not old:
            return
        due_s = self._claiming.lease_s / RENEWALS_PER_LEASE
        due = [call_id for call_id, item in old.items() if now - item.renewed >= due_s and not item.lost]
        self._check(old)
        if due:
            self._renew({call_id: old[call_id] for call_id in due if not old[call_id].lost}, now)

    def _check(self, old: dict[int, Held]) -> None:
        with self._database.read() as conn:
            ours = calls.held(conn, old, self._claiming.owner)
        self._lose(old, ours)

    def _renew(self, due: dict[int, Held], now: float) -> None:
        claiming = self._claiming
        with self._database.write() as conn:
            ours = calls.renew(conn, due, claiming.owner, claiming.clock() + claiming.lease_s)
        for call_id in ours:
            due[call_id].renewed = now
        self._lose(due, ours)

    def _lose(self, held: dict[int, Held], ours: set[int]) -> None:
        gone = [item for call_id, item in held.items() if call_id not in ours and not item.ended and not item.lost]
        for item in gone:
            item.lost = True
            _LOG.info("a call is no longer ours", action="lease.lost", call=item.work.call.id)


def exit_process() -> None:
    """End this process at once: nothing in it can be trusted to come to an end by itself."""
    os._exit(HANG_EXIT_CODE)


def _in_engine(held: Held) -> bool:
    """Not so what waits for a free slot, or for a database that is away: that says nothing of the engine."""
    return held.asked is not None and not all(future.done() for future in held.asked.futures)


class Watchdog:
    """Ends the process when a call is still in the engine well after its deadline: a device call hangs."""

    def __init__(self, hand: Hand, *, grace_s: float = HANG_GRACE_S, die: Callable[[], None] = exit_process) -> None:
        self._hand = hand
        self._grace_s = grace_s
        self._die = die

    def look(self) -> None:
        """One round."""
        now = time.monotonic()
        hanging = [item for item in self._hand.all() if now > item.deadline + self._grace_s and _in_engine(item)]
        if hanging:
            _LOG.critical(
                "the engine hangs; the process ends and its leases run out",
                action="watchdog.hang",
                calls=[item.work.call.id for item in hanging],
            )
            self._die()
