"""The two databases and the two object stores, as fixtures that run a test once on each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import schema
from storage.database import Database, open_database
from storage.objects import ObjectStore, open_objects
from storage.settings import Settings


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    schema.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """URL of a migrated SQLite file that this test alone uses."""
    path = tmp_path / "stagebeam.db"
    shutil.copy(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a migrated database, SQLite and Postgres in turn."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database, SQLite and Postgres in turn."""
    opened = open_database(database_url)
    yield opened
    opened.close()


@pytest.fixture(params=["local", "s3"])
def objects_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of an empty object store, a folder and S3 in turn."""
    if request.param == "s3":
        settings = request.getfixturevalue("s3_settings")
        assert isinstance(settings, Settings)
        return settings
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def objects(objects_settings: Settings) -> ObjectStore:
    """An empty object store, a folder and S3 in turn."""
    return open_objects(objects_settings)
