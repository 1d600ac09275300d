from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.database import Database, open_database
from storage.objects import open_objects
from storage.settings import Settings
from tests.schedules.bench import Bench


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    """One dataset of three rows at noon, on both databases."""
    return Bench(database, open_objects(Settings(data_dir=tmp_path / "data")))


@pytest.fixture
def sqlite_bench(sqlite_url: str, tmp_path: Path) -> Iterator[Bench]:
    """The same on SQLite alone, for what is the same statement by statement."""
    database = open_database(sqlite_url)
    yield Bench(database, open_objects(Settings(data_dir=tmp_path / "data")))
    database.close()
