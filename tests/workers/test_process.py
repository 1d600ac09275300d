"""Real worker processes against real servers: killed, stopped, drained, started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from sqlalchemy import Row, select, update

from storage import calls, planning
from storage.tables import Worker
from tests.services.processes import wrapped
from tests.waiting import wait_until
from tests.workers.conftest import Rows, advances
from workers.publish import send_calls

ROOT = Path(__file__).parents[2]
PROGRAM = (
    "import os\n"
    "from storage.settings import read_settings\n"
    "from workers.run import run_worker\n"
    "run_worker(read_settings(os.environ))\n"
)
START_S = 20.0
RESEND_S = 1.0


@dataclass(slots=True)
class Fleet:
    """Starts worker processes and plays the orchestrator: sends calls, and sends them again when leases ran out."""

    rows: Rows
    app: Celery
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, **settings: Any) -> subprocess.Popen[bytes]:
        """A worker that is ready. Settings are those of `Settings`; `script` stands for the engine's."""
        values = {"lease_s": 1, "heartbeat_s": 0.2, "worker_name": f"w{len(self.processes) + 1}", **settings}
        script = values.pop("script", "")
        values["engine_options"] = f"read_images=false,{script}"
        environment = {**self.environment, **{f"STAGEBEAM_{name.upper()}": str(v) for name, v in values.items()}}
        command = [*wrapped(), sys.executable, "-c", PROGRAM]
        process = subprocess.Popen(command, cwd=ROOT, env=environment)
        self.processes.append(process)
        wait_until(lambda: self.row(process).state == "ready", START_S, what="a worker is ready")
        return process

    def row(self, process: subprocess.Popen[bytes]) -> Row[Any]:
        with self.rows.database.read() as conn:
            found = conn.execute(select(Worker.__table__).where(Worker.id.like(f"%:{process.pid}:%")))
            return found.one()

    def send(self, call_ids: Sequence[int]) -> None:
        for call_id in call_ids:
            send_calls(self.app, "generate", "scripted", [call_id])

    def reconcile(self) -> bool:
        """Send what ran out of its lease or was lost with a worker; whether all calls have ended."""
        now = time.time()
        with self.rows.database.write() as conn:
            again = [call.id for call in calls.expire_leases(conn, now).queued]
            again += planning.sent_before(conn, "scripted", now, RESEND_S, 100)
            planning.mark_sent(conn, again, now)
        self.send(again)
        return self.rows.statuses() <= {"done", "failed"}

    def until_ended(self, timeout: float = 20.0) -> None:
        wait_until(self.reconcile, timeout, what="all calls ended")

    def until_leased(self, call_ids: Sequence[int]) -> None:
        wait_until(lambda: {row.status for row in self.rows.calls(*call_ids)} == {"leased"}, what="calls are leased")


@pytest.fixture
def fleet(rows: Rows, app: Celery, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    environment = {
        **os.environ,
        "STAGEBEAM_DATABASE_URL": database_url,
        "STAGEBEAM_BROKER_URL": redis_url,
        "STAGEBEAM_DATA_DIR": str(tmp_path / "data"),
        "STAGEBEAM_MODEL": "scripted",
    }
    made = Fleet(rows, app, environment)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.wait(10)


on_postgres = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
"""For what does not depend on the database: processes are slow to start."""


def test_a_killed_worker_costs_nothing_but_time(fleet: Fleet, rows: Rows, broker: redis.Redis) -> None:
    ids = rows.planned([f"number {number}?" for number in range(4)])
    doomed = fleet.start(script="seconds=600")
    fleet.send(ids)
    fleet.until_leased(ids)
    doomed.kill()
    doomed.wait(10)
    fleet.start()
    fleet.until_ended()
    assert [(row.status, row.attempts, row.deaths, row.error) for row in rows.calls(*ids)] == [("done", 2, 1, None)] * 4
    assert {row.worker.partition("@")[0] for row in rows.calls(*ids)} == {"w2"}
    assert rows.counters("job_1").wasted_calls == 0
    wait_until(lambda: advances(broker) >= 1)


@on_postgres
def test_a_poison_call_stops_nothing_but_itself(fleet: Fleet, rows: Rows) -> None:
    """It kills every worker that runs it; the calls in hand beside it are done in the end."""
    good = rows.planned(["good?", "fine?"])
    (poison,) = rows.planned(["bad? #kill"])
    settings = {"lease_s": 0.4, "script": "markers=true"}
    worker = fleet.start(**settings)
    fleet.send([poison, *good])

    def ended() -> bool:
        if fleet.processes[-1].poll() is not None:
            fleet.start(**settings)
        return fleet.reconcile()

    wait_until(ended, 25.0, what="all calls ended")
    assert worker.wait(10) in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert len(fleet.processes) <= 4
    row = rows.call(poison)
    assert (row.status, row.deaths, row.error["code"]) == ("failed", 3, "poison_call")
    assert {row.status for row in rows.calls(*good)} == {"done"}


@on_postgres
def test_a_redelivered_message_never_makes_work_run_twice(fleet: Fleet, rows: Rows, broker: redis.Redis) -> None:
    """Calls three times as long as the visibility timeout: renewed by the broker step, and fenced by leases."""
    ids = rows.planned(["one?", "two?"])
    settings = {"visibility_timeout_s": 1, "script": "seconds=3", "slots": 1}
    fleet.start(**settings)
    fleet.start(**settings)
    fleet.send(ids)
    fleet.until_leased(ids)

    def scores() -> list[float]:
        return [score for _, score in broker.zrange("unacked_index", 0, -1, withscores=True)]

    taken = max(scores())
    wait_until(lambda: min(scores()) > taken + 0.5, what="the step has renewed both messages")
    broker.zadd("unacked_index", dict.fromkeys(broker.zrange("unacked_index", 0, -1), 0.0), xx=True)
    fleet.until_ended()
    assert {(row.status, row.attempts, row.deaths) for row in rows.calls(*ids)} == {("done", 1, 0)}
    assert rows.counters("job_1").wasted_calls == 0
    wait_until(lambda: broker.hlen("unacked") == 0, what="every message is acknowledged")


@on_postgres
def test_the_first_signal_is_a_request_the_second_an_order(fleet: Fleet, rows: Rows, broker: redis.Redis) -> None:
    ids = rows.planned(["short?"])
    worker = fleet.start(script="seconds=1.5")
    fleet.send(ids)
    fleet.until_leased(ids)
    worker.terminate()
    assert worker.wait(15) == 0
    assert rows.call(ids[0]).status == "done"
    assert fleet.row(worker).state == "stopped"

    long = rows.planned(["long?"])
    worker = fleet.start(script="seconds=600")
    fleet.send(long)
    fleet.until_leased(long)
    worker.terminate()
    wait_until(lambda: fleet.row(worker).state == "draining")
    worker.terminate()
    assert worker.wait(15) == 0
    row = rows.call(long[0])
    assert (row.status, row.deaths, row.lease_owner) == ("queued", 0, None)
    fleet.start()
    wait_until(lambda: rows.statuses() == {"done"}, what="the message that was given back is found")


@on_postgres
def test_a_drained_worker_finishes_what_it_has_and_takes_nothing_until_told(
    fleet: Fleet, rows: Rows, broker: redis.Redis
) -> None:
    first, second = rows.planned(["one?"]), rows.planned(["two?"])
    worker = fleet.start(script="seconds=0.8")
    fleet.send(first)
    fleet.until_leased(first)

    def want(wish: str) -> None:
        with rows.database.write() as conn:
            conn.execute(update(Worker).where(Worker.id == fleet.row(worker).id).values(wanted=wish))

    want("drain")
    wait_until(lambda: fleet.row(worker).state == "draining")
    wait_until(lambda: rows.call(first[0]).status == "done")
    beat = fleet.row(worker).beat_at
    fleet.send(second)
    wait_until(lambda: fleet.row(worker).beat_at > beat + 0.7)  # after three beats
    assert rows.call(second[0]).status == "queued"
    assert worker.poll() is None
    want("run")
    wait_until(lambda: rows.call(second[0]).status == "done")
    assert fleet.row(worker).state == "ready"


@on_postgres
def test_the_heartbeat_tells_what_a_worker_is_and_does(fleet: Fleet, rows: Rows) -> None:
    ids = rows.planned(["one?"])
    worker = fleet.start(script="seconds=1", slots=3)
    fleet.send(ids)
    busy = seen(fleet, worker, lambda row: bool(row.in_hand))
    assert (busy.model, busy.slots, busy.wanted, busy.state) == ("scripted", 3, "run", "ready")
    assert busy.engine["kind"] == "scripted"
    assert [(item["id"], item["stage"]) for item in busy.in_hand] == [(ids[0], "summary")]
    assert abs(busy.in_hand[0]["since"] - time.time()) < 60
    idle = seen(fleet, worker, lambda row: not row.in_hand and row.stats["calls"].get("done") == 1)
    memory = idle.stats["memory"]["process"]
    assert 10_000_000 < memory["used"] <= memory["total"]
    assert memory["most"] > 10_000_000
    assert "device" not in idle.stats["memory"]
    assert idle.stats["engine"]["generated_tokens"] > 0


def seen(fleet: Fleet, worker: subprocess.Popen[bytes], check: Callable[[Row[Any]], bool]) -> Row[Any]:
    """The heartbeat row once it passes the check."""

    def look() -> Row[Any] | None:
        row = fleet.row(worker)
        return row if row.stats and check(row) else None

    row = wait_until(look)
    assert row is not None
    return row
