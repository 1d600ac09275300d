"""Waiting for queries: one look at the database for all that are waited for, however many there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import structlog
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from reasoning.errors import Transient
from storage.database import Database
from storage.portable import any_of
from storage.tables import Query
from storage.transitions import QUERY_ENDED

log = structlog.get_logger()

LOOK_S = 0.03
"""Between two looks; what an answer may be late by."""
AWAY_S = 1.0
"""Pause when the database is away."""

_QUERIES = Query.__table__


class Watcher:
    """Tells those who wait when their query moves on. Lives in one event loop."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: dict[int, asyncio.Queue[Any]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def follow(self, query_id: int) -> AsyncIterator[Any]:
        """The query's row each time its status or stage is another; the last one is that of the ended query."""
        seen: asyncio.Queue[Any] = asyncio.Queue()
        self._waiting[query_id] = seen
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            while True:
                row = await seen.get()
                yield row
                if row.status in QUERY_ENDED:
                    return
        finally:
            del self._waiting[query_id]

    async def _look(self) -> None:
        last: dict[int, tuple[str, str | None]] = {}
        while self._waiting:
            try:
                rows = await run_in_threadpool(self._read, list(self._waiting))
            except Transient as error:
                log.warning("A query could not be looked at.", action="watch.transient", error=str(error))
                await asyncio.sleep(AWAY_S)
                continue
            for row in rows:
                state = (row.status, row.stage)
                if last.get(row.id) != state and row.id in self._waiting:
                    last[row.id] = state
                    self._waiting[row.id].put_nowait(row)
            await asyncio.sleep(LOOK_S)

    def _read(self, ids: list[int]) -> list[Any]:
        with self._db.read() as conn:
            return list(conn.execute(select(_QUERIES).where(any_of(_QUERIES.c.id, ids))))
