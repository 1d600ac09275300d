"""How many requests go to a server at once: more while it answers, fewer when it pushes back."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class Gate:
    """Additive increase, multiplicative decrease; waiters of the earliest query go first.

    Going through in the order of queries keeps the requests of one query together, so that a server with a
    prefix cache still holds its prompt.
    """

    def __init__(self, start: int, most: int) -> None:
        self.limit = float(min(start, most))
        self.running = 0
        self._most = most
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = itertools.count()
        self._ranks: dict[str, int] = {}

    async def enter(self, group: str) -> None:
        """Wait for a place."""
        number = next(self._count)
        rank = self._ranks.setdefault(group, number) if group else number
        if self.running < int(self.limit) and not self._waiting:
            self.running += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, number, place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place back and let in whoever fits."""
        self.running -= 1
        while self._waiting and self.running < int(self.limit):
            place = heapq.heappop(self._waiting)[2]
            if not place.done():
                self.running += 1
                place.set_result(None)

    def forget(self, group: str) -> None:
        """The query has nothing in hand any more."""
        self._ranks.pop(group, None)

    def went_well(self) -> None:
        """A request was answered: one more at once per full round of answers."""
        self.limit = min(float(self._most), self.limit + 1.0 / self.limit)

    def pushed_back(self) -> None:
        """The server is over its limit: half as many at once."""
        self.limit = max(1.0, self.limit / 2)
