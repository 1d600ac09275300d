"""Which line used a custom_id first, for files of any length in a few MiB of memory."""

from __future__ import annotations

import sqlite3
from types import TracebackType
from typing import Self

CACHE_KIB = 16 * 1024
"""Memory for the index; beyond it the pages go to a temporary file that vanishes by itself."""

MARK_BYTES = 4 * 2**20
"""A bit for every id's hash: one that is not set spares the index the question. Of a million ids 3 in 100 ask it."""

RECENT = 500
"""Ids that wait to be added together: every statement lets another thread run, and this one then waits for its turn."""

_ADD_RECENT = "INSERT INTO seen VALUES " + ", ".join(["(?, ?)"] * RECENT)  # noqa: S608 - placeholders alone


class SeenIds:
    """An exact index on a private temporary SQLite file: no hash can accuse a line that is right."""

    def __init__(self) -> None:
        # An empty name is SQLite's own temporary database: in memory first, on disk when it grows.
        self._index = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}", "temp_store = FILE"):
            self._index.execute(f"PRAGMA {pragma}").close()
        self._index.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, line INTEGER NOT NULL) WITHOUT ROWID")
        self._index.execute("BEGIN")
        self._marks = bytearray(MARK_BYTES)
        self._recent: dict[str, int] = {}

    def first_use(self, custom_id: str, line: int) -> int | None:
        """The line that used `custom_id` first, or None when this is the one."""
        place, bit = divmod(hash(custom_id) % (8 * MARK_BYTES), 8)
        if self._marks[place] >> bit & 1:
            first = self._recent[custom_id] if custom_id in self._recent else self._indexed(custom_id)
            if first is not None:
                return first
        self._marks[place] |= 1 << bit
        self._recent[custom_id] = line
        if len(self._recent) == RECENT:
            self._index.execute(_ADD_RECENT, [value for item in self._recent.items() for value in item]).close()
            self._recent.clear()
        return None

    def _indexed(self, custom_id: str) -> int | None:
        found = self._index.execute("SELECT line FROM seen WHERE id = ?", (custom_id,)).fetchone()
        return None if found is None else int(found[0])

    def close(self) -> None:
        """Drop the index and its temporary file."""
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
