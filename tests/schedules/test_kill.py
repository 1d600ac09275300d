"""A real scheduler process on Postgres, killed for good wherever it stands; the next one goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import func, select, update

from storage import schedules
from storage.database import open_database
from storage.objects import open_objects
from storage.settings import Settings
from storage.tables import Dataset, Duty, File, Job, Slot
from tests.schedules.bench import Bench, rows
from tests.services.processes import SERVERS, wrapped
from tests.waiting import wait_until

SLOTS = 12
MINUTE = 60.0
PATIENCE_S = 100
"""For a process to start and get so far, on a busy machine too."""
ROWS = 400
"""So many that reading them takes a while to be killed in."""

_SLOTS = Slot.__table__


@dataclass
class Site:
    """A bench whose dataset is a file, and scheduler processes over the same stores."""

    bench: Bench
    folder: Path
    url: str

    @contextmanager
    def scheduler(self) -> Iterator[subprocess.Popen[bytes]]:
        """A process that is killed when the block ends, whatever it does then."""
        settings = {"STAGEBEAM_DATABASE_URL": self.url, "STAGEBEAM_DATA_DIR": str(self.folder / "data")}
        settings["STAGEBEAM_MODEL"] = "scripted"
        with (self.folder / "log").open("ab") as log:
            command = [*wrapped(), sys.executable, "-m", "orchestrator.cli", "scheduler"]
            process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
        SERVERS.add(process.pid)
        try:
            yield process
        finally:
            process.kill()
            process.wait(10)
            SERVERS.discard(process.pid)

    def neglected(self) -> None:
        """A schedule of every minute whose last twelve slots nobody decided."""
        options = {"catch_up": "all", "overlap": "allow", "catch_up_window_s": 86400.0, "catch_up_cap": 500}
        rule = {"kind": "interval", "every_s": MINUTE, "max_runs": SLOTS}
        schedule_id = self.bench.schedule(rule, **options)
        back = self.bench.now - SLOTS * MINUTE
        with self.bench.db.write() as conn:
            schedules.change(conn, schedule_id, {"cursor_at": back, "next_at": back + MINUTE}, self.bench.now)

    def killed_when(self, seen: Callable[[], Any], what: str) -> None:
        """Run one scheduler until something is seen, and kill it there."""
        with self.scheduler() as process:

            def look() -> bool:
                self.end_leases_but_of(process)
                return process.poll() is not None or bool(seen())

            wait_until(look, PATIENCE_S, pause=0.001, what=what)
            assert process.poll() is None, (self.folder / "log").read_text()[-3000:]

    def end_leases_but_of(self, *living: subprocess.Popen[bytes]) -> None:
        """Let a minute pass for the dead; again and again, as what one sent at its end may come in after it."""
        duties = Duty.__table__
        theirs = [duties.c.owner.not_like(f"%:{process.pid}:%") for process in living]
        with self.bench.db.write() as conn:
            conn.execute(update(duties).where(*theirs).values(until=0.0))

    def slots(self) -> list[Any]:
        with self.bench.db.read() as conn:
            return list(conn.execute(select(_SLOTS).order_by(_SLOTS.c.id)))

    def fired(self) -> int:
        return sum(slot.status == "fired" for slot in self.slots())

    def jobs(self) -> list[Any]:
        jobs = Job.__table__
        with self.bench.db.read() as conn:
            return list(conn.execute(select(jobs.c.id, jobs.c.source_ref, jobs.c.input_file_id)))

    def starting(self) -> bool:
        duties = Duty.__table__
        with self.bench.db.read() as conn:
            held = (duties.c.name.like("slot:%"), duties.c.until > 0)  # the dead leave theirs behind
            return conn.execute(select(duties.c.name).where(*held)).first() is not None


@pytest.fixture
def site(postgres_url: str, tmp_path: Path) -> Iterator[Site]:
    """Stores on Postgres, and a dataset that is a file of rows."""
    database = open_database(postgres_url)
    with database.read() as conn:
        now = float(conn.execute(select(func.extract("epoch", func.now()))).scalar_one())
    bench = Bench(database, open_objects(Settings(data_dir=tmp_path / "data")), now=now // MINUTE * MINUTE)
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows(ROWS)))
    with database.write() as conn:
        settings = {"kind": "path", "address": str(source)}
        conn.execute(update(Dataset.__table__).values(source=settings))
    yield Site(bench, tmp_path, postgres_url)
    database.close()


@pytest.mark.timeout(3 * PATIENCE_S)
def test_a_scheduler_killed_wherever_it_stands_fires_nothing_twice_and_loses_nothing(site: Site):
    site.neglected()
    for seen, what in ((site.starting, "a slot that is being started"), (site.jobs, "the first job")):
        site.killed_when(seen, what)
        assert len(site.slots()) == SLOTS
        assert site.fired() < SLOTS
    site.killed_when(lambda: site.fired() == SLOTS and not site.starting(), "all slots fired, between two ticks")
    site.neglected()
    with site.scheduler() as one, site.scheduler() as two:

        def all_fired() -> bool:
            site.end_leases_but_of(one, two)
            return site.fired() == 2 * SLOTS

        wait_until(all_fired, PATIENCE_S, what="two schedulers to fire what is left")
    slots = site.slots()
    assert [slot.status for slot in slots] == ["fired"] * 2 * SLOTS
    assert len({(slot.schedule_id, slot.due_at) for slot in slots}) == 2 * SLOTS
    made = site.jobs()
    with site.bench.db.read() as conn:
        stored = {row.id: row for row in conn.execute(select(File.__table__))}
    assert sorted((slot.job_id, str(slot.id)) for slot in slots) == sorted((job.id, job.source_ref) for job in made)
    for job in made:
        lines = site.bench.objects.read(stored[job.input_file_id].object_key).splitlines()
        assert len(lines) == ROWS
