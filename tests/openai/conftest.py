"""A served API for each test, and one whole stack for the session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from storage.database import Database, open_database
from storage.objects import open_objects
from tests.openai.wire import Wire, served, settings_of
from tests.services.processes import free_port, server


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


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of `stagebeam up` with the scripted engine."""
    folder = tmp_path_factory.mktemp("live")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["env", "STAGEBEAM_RECONCILE_S=0.3", sys.executable, "-m", "orchestrator.cli", "up"]
    command += ["--port", str(port), "--data", str(folder / "data"), "--model", "scripted"]

    def ready() -> bool:
        return httpx.get(f"{url}/health/ready", timeout=2).is_success

    with server(command, log=folder / "log", ready=ready, cwd=Path(__file__).parents[2], timeout=90):
        yield url
