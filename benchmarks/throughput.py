"""Stage decisions per second, end to end on Postgres and Redis, beside the same search as a Celery canvas.

Both sides run in one go on the same servers with an engine that costs nothing, so what is measured is the
queue itself. A stage decision is: the candidates of one stage of one query drawn, judged, and the next stage
planned. Run `python -m benchmarks.throughput`; the result goes to `benchmarks/results/throughput.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import redis
from sqlalchemy import insert

from orchestrator.actions import resume_job
from orchestrator.intake.rows import NewQuery, insert_queries
from reasoning.policy import Policy
from storage import jobs, transitions
from storage.database import Database, open_database
from storage.tables import Job, JobCounters
from tests.services.postgres import DURABLE, private_postgres
from tests.services.redis import private_redis

RESULT = Path(__file__).parent / "results" / "throughput.json"
STAGES = 4


def main() -> None:
    """Measure both sides and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=1500)
    parser.add_argument("--canvas-queries", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    ours, peers = [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        private_postgres(DURABLE) as postgres,
        private_redis(Path(folder)) as broker,
    ):
        url = postgres.url(postgres.create())
        for number in range(options.rounds):
            ours.append(measure_stagebeam(url, broker, options, number))
            peers.append(measure_canvas(broker, options))
            print(f"round {number + 1}: stagebeam {ours[-1]['per_s']:.0f}/s, canvas {peers[-1]['per_s']:.0f}/s")
    report = {
        "what": "stage decisions per second, scripted engine at no cost",
        "candidates": options.candidates,
        "stagebeam": {"queries": options.queries, "median_per_s": median(ours), "rounds": ours},
        "canvas": {"queries": options.canvas_queries, "median_per_s": median(peers), "rounds": peers},
        "ratio": round(median(ours) / median(peers), 1),
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "versions": {name: version(name) for name in ("celery", "kombu", "redis", "sqlalchemy", "psycopg")},
        "python": platform.python_version(),
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({name: report[name] for name in ("stagebeam", "canvas", "ratio")}, indent=1))


def median(rounds: list[dict[str, float]]) -> float:
    """Decisions per second, in the middle."""
    return round(statistics.median(item["per_s"] for item in rounds), 1)


def measure_stagebeam(url: str, broker: str, options: Any, number: int) -> dict[str, float]:
    """One job through one orchestrator and one worker process, after a job of one query as the canvas has too."""
    db = open_database(url)
    job_id, first = f"job_{number}", f"first_{number}"
    policy = Policy(candidates=options.candidates, seed=number)
    fill(db, first, 1, policy)
    fill(db, job_id, options.queries, policy)
    env = service_environment(url, broker, slots=512)
    with running([stagebeam(), "orchestrator"], env), running([stagebeam(), "worker"], env):
        wait(lambda: workers_ready(db))
        resume_job(db, first)
        wait(lambda: read(db, first).done)
        started = time.monotonic()
        resume_job(db, job_id)
        peak = 0
        with redis.Redis.from_url(broker) as client:
            while (job := read(db, job_id)).waiting or job.running:
                peak = max(peak, int(client.info("memory")["used_memory"]))
                time.sleep(0.05)
        seconds = time.monotonic() - started
    db.close()
    decisions = STAGES * options.queries
    return {"per_s": round(decisions / seconds, 1), "seconds": round(seconds, 2), "broker_peak_bytes": peak}


def service_environment(url: str, broker: str, *, slots: int) -> dict[str, str]:
    """Environment of an orchestrator and a worker with the scripted engine over these servers."""
    return {
        **os.environ,
        "STAGEBEAM_DATABASE_URL": url,
        "STAGEBEAM_BROKER_URL": broker,
        "STAGEBEAM_OBJECT_STORE": tempfile.mkdtemp(),
        "STAGEBEAM_MODEL": "scripted",
        "STAGEBEAM_SLOTS": str(slots),
        "STAGEBEAM_LOG_LEVEL": "warning",
    }


def stagebeam() -> str:
    """The command of this environment."""
    return str(Path(sys.executable).parent / "stagebeam")


def measure_canvas(broker: str, options: Any) -> dict[str, float]:
    """The same number of candidates per stage as chords, on two prefork processes."""
    env = {**os.environ, "CANVAS_BROKER": broker.removesuffix("/0") + "/1"}
    code = "from benchmarks.canvas import search; import sys, time\n" + CANVAS_RUN
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.canvas", "worker", "-P", "prefork", "-c", "2"]
    with running([*command, "-l", "ERROR"], env):
        time.sleep(3)
        arguments = [str(options.canvas_queries), str(options.candidates)]
        done = subprocess.run([sys.executable, "-c", code, *arguments], env=env, check=True, capture_output=True)
    seconds = float(done.stdout.split()[-1])
    return {"per_s": round(STAGES * options.canvas_queries / seconds, 1), "seconds": round(seconds, 2)}


CANVAS_RUN = """
count, candidates = int(sys.argv[1]), int(sys.argv[2])
search(0, candidates).delay().get(timeout=60)
started = time.monotonic()
results = [search(number, candidates).delay() for number in range(count)]
for result in results:
    assert len(result.get(timeout=300)) == 4
print(time.monotonic() - started)
"""


def fill(db: Database, job_id: str, size: int, policy: Policy) -> None:
    """A paused running job of `size` questions."""
    now = time.time()
    body = orjson.dumps({"question": "How many balls are left?", "images": []}).decode()
    values = {
        "id": job_id,
        "project_id": "default",
        "status": "running",
        "model": "scripted",
        "policy": policy.to_mapping(),
        "policy_digest": policy.digest,
        "created_at": now,
        "paused_at": now,
    }
    with db.write() as conn:
        conn.execute(insert(Job.__table__).values(values))
        conn.execute(insert(JobCounters.__table__).values(job_id=job_id))
        insert_queries(conn, job_id, [NewQuery(line, f"q{line}", body) for line in range(1, size + 1)], now)
        transitions.add_counts(conn, job_id, {"total": size, "waiting": size})


def read(db: Database, job_id: str) -> Any:
    """The job row with its counters."""
    with db.read() as conn:
        return jobs.get(conn, job_id)


def workers_ready(db: Database) -> bool:
    """Whether a worker beats and an orchestrator holds the duty."""
    with db.read() as conn:
        ready = conn.exec_driver_sql("SELECT count(*) FROM workers WHERE state = 'ready'").scalar_one()
        held = conn.exec_driver_sql("SELECT count(*) FROM duties").scalar_one()
    return bool(ready) and bool(held)


def wait(reached: Any, timeout_s: float = 60.0) -> None:
    """Until `reached()` is true."""
    end = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > end:
            raise TimeoutError("a service did not start")
        time.sleep(0.05)


@contextmanager
def running(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that ends with the block."""
    process = subprocess.Popen(command, env=env)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
