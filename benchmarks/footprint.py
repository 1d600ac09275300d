"""Peak memory of the orchestrator and the worker, and bytes held by the broker, for jobs of growing size.

What is claimed is that none of them grows with the job. One pass per query and an engine that costs nothing,
so that the largest size ends in minutes. Run `python -m benchmarks.footprint`; the result goes to
`benchmarks/results/footprint.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import redis

from benchmarks.memory import peak_bytes
from benchmarks.throughput import fill, read, running, service_environment, stagebeam, wait, workers_ready
from orchestrator.actions import resume_job
from reasoning.policy import Policy
from storage.database import open_database
from tests.services.postgres import DURABLE, private_postgres
from tests.services.redis import private_redis

RESULT = Path(__file__).parent / "results" / "footprint.json"


def main() -> None:
    """Measure every size and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = []
    for size in options.sizes:
        with (
            tempfile.TemporaryDirectory() as folder,
            private_postgres(DURABLE) as postgres,
            private_redis(Path(folder)) as broker,
        ):
            rows.append(measure(postgres.url(postgres.create()), broker, size))
        print(json.dumps(rows[-1]))
    report = {
        "what": "peak memory and broker bytes by job size, one pass per query, scripted engine at no cost",
        "sizes": rows,
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("celery", "kombu", "redis", "sqlalchemy", "psycopg")},
        "python": platform.python_version(),
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


def measure(url: str, broker: str, size: int) -> dict[str, Any]:
    """One job of `size` queries; bytes, and messages in the broker at its fullest."""
    db = open_database(url)
    job_id = f"job_{size}"
    fill(db, job_id, size, Policy(strategy="single", seed=1))
    env = service_environment(url, broker, slots=64)
    with running([stagebeam(), "orchestrator"], env) as brain, running([stagebeam(), "worker"], env) as hands:
        wait(lambda: workers_ready(db))
        started = time.monotonic()
        resume_job(db, job_id)
        most_bytes = most_messages = 0
        with redis.Redis.from_url(broker) as client:
            idle = int(client.info("memory")["used_memory"])
            while (job := read(db, job_id)).waiting or job.running:
                most_bytes = max(most_bytes, int(client.info("memory")["used_memory"]) - idle)
                most_messages = max(most_messages, queued(client))
                time.sleep(0.1)
        row = {
            "queries": size,
            "seconds": round(time.monotonic() - started, 1),
            "orchestrator_peak_bytes": peak_bytes(brain.pid),
            "worker_peak_bytes": peak_bytes(hands.pid),
            "broker_growth_bytes": most_bytes,
            "broker_messages": most_messages,
        }
    db.close()
    return row


def queued(client: redis.Redis) -> int:
    """Messages in all lists and those taken and not yet acknowledged."""
    lists = [key for key in client.keys("stagebeam.*") if client.type(key) == b"list"]
    return sum(int(client.llen(key)) for key in lists) + int(client.hlen("unacked"))


if __name__ == "__main__":
    main()
