from __future__ import annotations

from pathlib import Path

import pytest

from storage.database import Database
from storage.objects import open_objects
from storage.settings import Settings
from tests.schedules.bench import Bench


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    """One dataset of three rows at noon, on both databases."""
    return Bench(database, open_objects(Settings(data_dir=tmp_path / "data")))
