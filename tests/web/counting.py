"""Counts what a database is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event

from storage.database import Database


@contextmanager
def statements(db: Database) -> Iterator[list[str]]:
    """The statements that run inside the block, as they are sent."""
    seen: list[str] = []
    # On Postgres the readers are the writers with an option, and share their events.
    engines = (db._writers, db._readers) if db.dialect == "sqlite" else (db._writers,)

    def note(_conn: object, _cursor: object, statement: str, *_rest: object) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            seen.append(statement)

    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)
