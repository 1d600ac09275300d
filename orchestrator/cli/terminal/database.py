"""The database of the settings, for commands that work on it and not over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.database import Database


@contextmanager
def open_own() -> Iterator[Database]:
    """The database, its schema checked. Raises BadInput when it needs `stagebeam db upgrade`."""
    from orchestrator.cli.terminal.door import settings_with
    from storage import schema
    from storage.database import open_database

    url = settings_with().effective_database_url
    schema.check(url)
    db = open_database(url, pool_size=1)
    try:
        yield db
    finally:
        db.close()
