"""A worker that loads its model has a row that says so."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, select

from storage import fleet
from storage.database import Database
from storage.settings import Settings
from storage.tables import Worker
from tests.waiting import wait_until
from workers.starting import starting


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(database_url=database_url, data_dir=tmp_path, heartbeat_s=0.05)


def row(database: Database) -> Row[Any]:
    with database.read() as conn:
        return conn.execute(select(Worker.__table__)).one()


def test_it_beats_while_the_model_loads_and_is_completed_after(database: Database, settings: Settings) -> None:
    with starting(settings, "w1", "big"):
        first = row(database)
        assert (first.state, first.model, first.slots) == ("starting", "big", 0)
        wait_until(lambda: row(database).beat_at > first.beat_at)
        with database.read() as conn:
            assert fleet.states(conn, first.beat_at, 60.0) == {"big": {"starting"}}
            assert fleet.live_slots(conn, first.beat_at, 60.0) == {}
            assert fleet.revision(conn, "big") is None
    with database.write() as conn:
        fleet.enroll(conn, fleet.NewWorker("w1", "big", {"revision": "r1"}, 4, "1"), first.beat_at)
        assert fleet.revision(conn, "big") == "r1"
    assert (row(database).slots, row(database).started_at) == (4, first.started_at)


@pytest.mark.parametrize("end", ["failure", "signal"])
def test_a_start_that_fails_leaves_no_row(database: Database, settings: Settings, end: str) -> None:
    def start() -> None:
        with starting(settings, "w1", "big"):
            if end == "failure":
                raise MemoryError
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises((MemoryError, SystemExit)):
        start()
    with database.read() as conn:
        assert fleet.states(conn, 0.0, 60.0) == {}
    assert signal.getsignal(signal.SIGTERM) is before
