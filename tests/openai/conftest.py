"""A served API for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.database import Database, open_database
from storage.objects import open_objects
from tests.openai.wire import Wire, served, settings_of


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    opened = open_database(sqlite_url)
    yield opened
    opened.close()


@pytest.fixture
def wire(sqlite_database: Database, tmp_path: Path) -> Iterator[Wire]:
    """The API over SQLite and a folder: for what no database has a say in."""
    with wired(sqlite_database, tmp_path) as found:
        yield found


@pytest.fixture
def any_wire(database: Database, tmp_path: Path) -> Iterator[Wire]:
    """The API over a database of either kind in turn."""
    with wired(database, tmp_path) as found:
        yield found


@contextmanager
def wired(database: Database, folder: Path) -> Iterator[Wire]:
    settings = settings_of(folder / "data")
    objects = open_objects(settings)
    with served(settings, database, objects) as url:
        wire = Wire(url, settings, database, objects)
        yield wire
        for client in wire.clients:
            client.close()
