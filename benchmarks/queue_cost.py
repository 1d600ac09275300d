"""What the queue costs: the same searches on the demo model through Celery, Postgres and judge tasks, and bare.

Both sides plan the same calls with the same seeds on the same engine (processes of its own, one per core); the job
runs in one worker with one orchestrator, on a Postgres that keeps what it confirmed; the bare side in one process
without any of these. The sides take turns. Everything runs on this machine: where the engine fills all cores, what the
other services compute is part of the cost, and CPU seconds by process say how much that is. Before it is timed each
side answers a few other questions: what a process does once in its life is not what a job costs.
Run `python -m benchmarks.queue_cost`; the result goes to `benchmarks/results/queue_cost.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import psutil
from sqlalchemy import func, insert, select

from benchmarks.cpu import CpuAccount
from benchmarks.engine import environment
from benchmarks.engine_work import POLICY, Work, make_work
from benchmarks.search_in_process import InProcess
from benchmarks.throughput import read, running, service_environment, stagebeam, wait, workers_ready
from orchestrator.actions import resume_job
from orchestrator.intake.keeper import BlobKeeper
from orchestrator.intake.pictures import Limits, inspect
from orchestrator.intake.rows import NewQuery, insert_queries
from reasoning.decisions import Answer
from reasoning.policy import Policy
from reasoning.records import Query as ImageQuestion
from storage import transitions
from storage.database import Database, open_database
from storage.objects.local import LocalStore
from storage.tables import Call, Job, JobCounters, Query
from tests.services.postgres import DURABLE, private_postgres
from tests.services.redis import private_redis
from workers.engine.registry import open_engine

RESULT = Path(__file__).parent / "results" / "queue_cost.json"
FLIGHT = 64
"""Requests that the engine takes at once, on both sides, and searches that the bare side keeps going."""
ADMITTED = 128
"""Queries that a job has admitted for one worker of so many slots; the bare side is measured with as many too."""
FIRST = 16
"""Other questions that each side answers before it is timed."""
PICTURES = Limits(max_bytes=2**20, max_pixels=2**20)
ENGINE = {"device": "cpu", "slots": FLIGHT}


def main() -> None:
    """Measure both sides in turn and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue_cost", description=__doc__)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    work = make_work(options.queries + FIRST)
    rounds: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        private_postgres(DURABLE) as postgres,
        private_redis(Path(folder)) as broker,
    ):
        url = postgres.url(postgres.create())
        for number in range(options.rounds):
            policy = POLICY.with_overrides({"candidates": options.candidates, "fan_out": "together", "seed": number})
            bare = bare_side(work, policy, FLIGHT)
            queued = queue_side(url, broker, Path(folder), work, policy)
            wide = bare_side(work, policy, ADMITTED)
            rounds.append(
                {
                    "bare": bare,
                    "queue": queued,
                    "bare_as_many_in_flight": wide,
                    "cost": queued["seconds"] / bare["seconds"] - 1,
                    "cost_over_as_many_in_flight": queued["seconds"] / wide["seconds"] - 1,
                    "cpu_cost": sum(queued["cpu_seconds"].values()) / sum(bare["cpu_seconds"].values()) - 1,
                    "load": os.getloadavg()[0],
                }
            )
            print(json.dumps(rounds[-1]), flush=True)
    report = {
        "what": "wall time of a job over that of the bare engine loop with the same calls, less one",
        "queries": options.queries,
        "answered_before": FIRST,
        "candidates": options.candidates,
        "median_cost": statistics.median(item["cost"] for item in rounds),
        "median_cost_over_as_many_in_flight": statistics.median(item["cost_over_as_many_in_flight"] for item in rounds),
        "median_cpu_cost": statistics.median(item["cpu_cost"] for item in rounds),
        "rounds": rounds,
        "environment": environment(),
        "versions": {name: version(name) for name in ("celery", "kombu", "redis", "sqlalchemy", "psycopg")},
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


def bare_side(work: Work, policy: Policy, flight: int) -> dict[str, Any]:
    """Whole searches over the engine, planned in this process, `flight` at a time."""
    engine = open_engine("demo", ENGINE)
    try:
        search = InProcess(engine, work.pictures.__getitem__, flight=flight)
        search.run(policy, work.queries[:FIRST])
        account = CpuAccount({}, engine=runs_a_model)
        started = time.monotonic()
        found = search.run(policy, work.queries[FIRST:])
        seconds = time.monotonic() - started
        spent = account.spent()
    finally:
        engine.close()
    usages = [call.usage for one in found for call in one.calls.values()]
    return {
        "seconds": seconds,
        "answered": sum(isinstance(one.decision, Answer) for one in found),
        "calls": len(usages),
        "tokens": sum(usage.generated_tokens for usage in usages),
        "cpu_seconds": {"engine": spent["engine"], "search": spent["benchmark"]},
    }


def runs_a_model(process: psutil.Process) -> bool:
    """Whether this is one of the engine's own processes."""
    return "workers.engine.apart_child" in process.cmdline()


def keep_pictures(db: Database, store: Path, work: Work) -> None:
    """Store the images as ingest does."""
    keeper = BlobKeeper(db, LocalStore(store), "default", time.time)
    pictures = {data: inspect(data, PICTURES) for data in work.pictures.values()}
    for data, picture in pictures.items():
        keeper.upload(picture, data)
    keeper.record(list(pictures.values()))


def queue_side(url: str, broker: str, folder: Path, work: Work, policy: Policy) -> dict[str, Any]:
    """One job through one orchestrator and one worker process."""
    db = open_database(url)
    first, job_id = f"first_{policy.seed}", f"job_{policy.seed}"
    store = folder / "objects"
    keep_pictures(db, store, work)
    fill(db, first, work.queries[:FIRST], policy)
    fill(db, job_id, work.queries[FIRST:], policy)
    env = service_environment(url, broker, slots=FLIGHT) | {
        "STAGEBEAM_MODEL": "demo",
        "STAGEBEAM_OBJECT_STORE": str(store),
        "STAGEBEAM_DEVICE": "cpu",
    }
    with running([stagebeam(), "orchestrator"], env) as brain, running([stagebeam(), "worker"], env) as hands:
        wait(lambda: workers_ready(db), 120.0)
        resume_job(db, first)
        wait(lambda: read_status(db, first) == "completed", 120.0)
        account = CpuAccount({brain.pid: "orchestrator", hands.pid: "worker"}, engine=runs_a_model)
        started = time.time()
        resume_job(db, job_id)
        while (job := read(db, job_id)).waiting or job.running:
            time.sleep(0.25)
        spent = account.spent()
    with db.read() as conn:
        ended: Any = conn.execute(select(func.max(Query.ended_at)).where(Query.job_id == job_id)).scalar_one()
        calls = conn.execute(select(func.count()).where(Call.job_id == job_id)).scalar_one()
    db.close()
    tokens = job.kept_tokens + job.discarded_tokens + job.judged_tokens
    found = {"seconds": ended - started, "answered": job.done, "calls": calls, "tokens": tokens}
    return {**found, "cpu_seconds": {role: seconds for role, seconds in spent.items() if role != "benchmark"}}


def read_status(db: Database, job_id: str) -> str:
    """The job's status."""
    with db.read() as conn:
        return str(conn.execute(select(Job.status).where(Job.id == job_id)).scalar_one())


def fill(db: Database, job_id: str, questions: Sequence[ImageQuestion], policy: Policy) -> None:
    """A paused running job of the questions."""
    now = time.time()
    values: dict[str, Any] = {
        "id": job_id,
        "project_id": "default",
        "status": "running",
        "model": "demo",
        "policy": policy.to_mapping(),
        "policy_digest": policy.digest,
        "created_at": now,
        "paused_at": now,
    }
    rows = [
        NewQuery(line, query.custom_id, orjson.dumps(_body(query)).decode())
        for line, query in enumerate(questions, start=1)
    ]
    with db.write() as conn:
        conn.execute(insert(Job.__table__).values(values))
        conn.execute(insert(JobCounters.__table__).values(job_id=job_id))
        insert_queries(conn, job_id, rows, now)
        transitions.add_counts(conn, job_id, {"total": len(rows), "waiting": len(rows)})


def _body(query: ImageQuestion) -> dict[str, Any]:
    return {"question": query.question, "images": list(query.images), "choices": list(query.choices)}


if __name__ == "__main__":
    main()
