"""Which line used a custom_id first, for files of any length in a few MiB of memory."""

from __future__ import annotations

import sqlite3
from types import TracebackType
from typing import Self

CACHE_KIB = 16 * 1024
"""Memory for the index; beyond it the pages go to a temporary file that vanishes by itself."""


class SeenIds:
    """An exact index on a private temporary SQLite file: no hash can accuse a line that is right."""

    def __init__(self) -> None:
        # An empty name is SQLite's own temporary database: in memory first, on disk when it grows.
        self._index = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}", "temp_store = FILE"):
            self._index.execute(f"PRAGMA {pragma}").close()
        self._index.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, line INTEGER NOT NULL) WITHOUT ROWID")
        self._index.execute("BEGIN")

    def first_use(self, custom_id: str, line: int) -> int | None:
        """The line that used `custom_id` first, or None when this is the one."""
        added = self._index.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (custom_id, line))
        if added.rowcount:
            return None
        found = self._index.execute("SELECT line FROM seen WHERE id = ?", (custom_id,)).fetchone()
        return int(found[0])

    def close(self) -> None:
        """Drop the index and its temporary file."""
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
