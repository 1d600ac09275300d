"""What the wire costs: reading lines in, the way to the first token, lists over a million queries, memory of 200 MB.

Run `python -m benchmarks.wire`; the result goes to `benchmarks/results/wire.json`. All of it on Postgres, over
real HTTP, with the scripted engine where an engine is needed. On a machine with other work, keep that out
(`chrt -r 1` before the command); the result says how it was run.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import platform
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import httpx
import psycopg
from PIL import Image
from sqlalchemy import insert

from orchestrator.intake.rows import NewQuery, insert_queries
from reasoning.policy import Policy
from storage import schema
from storage.database import open_database
from storage.tables import Job, JobCounters
from tests.services.postgres import private_postgres
from tests.services.processes import free_port, server

RESULT = Path(__file__).parent / "results" / "wire.json"
ENDPOINT = "/v1/chat/completions"
JOBS, QUERIES_EACH = 1000, 1000
UPLOAD_LINES = 50_000


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=50_000, help="lines of the ingest measurement")
    parser.add_argument("--rounds", type=int, default=20, help="batches of the first-token measurement")
    parser.add_argument("--jobs", type=int, default=JOBS, help="jobs of a thousand queries in the lists measurement")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    found["real_time"] = os.sched_getscheduler(0) == os.SCHED_RR
    with tempfile.TemporaryDirectory() as folder, private_postgres() as postgres:
        url = postgres.url(postgres.create())
        with stack(url, Path(folder) / "live") as (address, process):
            found["first_token"] = shown("first token", first_token(address, url, options.rounds))
            found["ingest"] = shown("ingest", ingest_rate(address, options.lines))
            found["upload"] = shown("200 MB upload", big_upload(address, process))
        full = postgres.url(postgres.create())
        found["stored_queries"] = fill(full, options.jobs)
        with stack(full, Path(folder) / "full", "api", broker="redis://127.0.0.1:1/0") as (address, _):
            found["lists"] = shown("lists", lists(address))
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")


def shown(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """Print and pass on."""
    print(f"{name}: {json.dumps(value)}", flush=True)
    return value


@contextmanager
def stack(database_url: str, data: Path, noun: str = "up", broker: str = "") -> Iterator[tuple[str, int]]:
    """Address and process id of `stagebeam up` or `stagebeam api` over a database."""
    port = free_port()
    settings = {"DATABASE_URL": database_url, "DATA_DIR": str(data), "MODEL": "scripted", "PORT": str(port)}
    if broker:
        settings["BROKER_URL"] = broker
    words = [f"STAGEBEAM_{name}={value}" for name, value in settings.items()]
    address = f"http://127.0.0.1:{port}"
    log = data.parent / f"{data.name}.log"
    command = ["env", *words, sys.executable, "-m", "orchestrator.cli", noun]
    ready = "ready" if noun == "up" else "live"

    def answers() -> bool:
        return httpx.get(f"{address}/health/{ready}", timeout=2).is_success

    with server(command, log=log, ready=answers, timeout=120) as process:
        yield address, process.pid


def line(number: int, url: str | None = None) -> dict[str, Any]:
    """A chat line, with an image when `url` is given."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": f"How many objects are left in picture {number}?"}]
    if url:
        parts.insert(0, {"type": "image_url", "image_url": {"url": url}})
    body = {"model": "scripted", "messages": [{"role": "user", "content": parts}]}
    return {"custom_id": f"scene-{number:08d}", "method": "POST", "url": ENDPOINT, "body": body}


def create(http: httpx.Client, text: bytes | IO[bytes], **extra: Any) -> str:
    """Upload and create; the batch id."""
    form = {"purpose": "batch"}
    file = http.post("/v1/files", data=form, files={"file": ("in.jsonl", text)}, timeout=600).raise_for_status().json()
    body = {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h", **extra}
    return str(http.post("/v1/batches", json=body).raise_for_status().json()["id"])


def first_token(address: str, database_url: str, rounds: int) -> dict[str, Any]:
    """Milliseconds from sending the create request to the first candidate that is written, worker idle."""
    waits = []
    conninfo = database_url.replace("postgresql+psycopg", "postgresql")
    with httpx.Client(base_url=address) as http, psycopg.connect(conninfo, autocommit=True) as conn:
        for number in range(rounds):
            file = http.post(
                "/v1/files", data={"purpose": "batch"}, files={"file": (f"{number}", json.dumps(line(number)).encode())}
            ).json()
            body = {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h"}
            start = time.time()
            batch = http.post("/v1/batches", json=body).json()["id"]
            wait_for(partial(completed, http, batch), 60)
            rows = conn.execute(
                "SELECT min(c.ended_at) FROM calls c JOIN queries q ON q.id = c.query_id WHERE q.job_id = %s", (batch,)
            ).fetchall()
            waits.append((rows[0][0] - start) * 1000)
    return spread(waits, "ms")


def completed(http: httpx.Client, batch: str) -> bool:
    """Whether the batch is."""
    return bool(http.get(f"/v1/batches/{batch}").json()["status"] == "completed")


def ingest_rate(address: str, lines: int) -> dict[str, Any]:
    """Lines per second from create to `in_progress`, with the rest of the stack running beside it."""
    text = b"".join(json.dumps(line(number)).encode() + b"\n" for number in range(lines))
    with httpx.Client(base_url=address) as http:
        batch = create(http, text)
        start = time.perf_counter()
        wait_for(lambda: http.get(f"/v1/batches/{batch}").json()["status"] != "validating", 300, pause_s=0.02)
        seconds = time.perf_counter() - start
        http.post(f"/v1/batches/{batch}/cancel")
        wait_for(lambda: http.get(f"/v1/batches/{batch}").json()["status"] == "cancelled", 300, pause_s=0.5)
    return {"lines": lines, "seconds": round(seconds, 2), "lines_per_s": round(lines / seconds)}


def big_upload(address: str, process: int) -> dict[str, Any]:
    """A file of 200 MB and 50,000 lines, each with an image of its own: what the processes grow by."""
    with tempfile.TemporaryFile() as file:
        rng = random.Random(0)
        for number in range(UPLOAD_LINES):
            file.write(json.dumps(line(number, picture(rng))).encode() + b"\n")
        size = file.tell()
        file.seek(0)
        before = memory(process)
        peaks = dict(before)
        with httpx.Client(base_url=address) as http:
            start = time.perf_counter()
            batch = create(http, file)
            uploaded = time.perf_counter() - start

            def validated() -> bool:
                for name, value in memory(process).items():
                    peaks[name] = max(peaks.get(name, 0.0), value)
                return bool(http.get(f"/v1/batches/{batch}").json()["status"] != "validating")

            wait_for(validated, 550, pause_s=0.2)
            seconds = time.perf_counter() - start
            status = http.get(f"/v1/batches/{batch}").json()["status"]
            http.post(f"/v1/batches/{batch}/cancel")
    grown = {name: round(peaks[name] - before.get(name, 0.0)) for name in peaks}
    shape = {"bytes": size, "lines": UPLOAD_LINES, "upload_s": round(uploaded, 1), "validated_s": round(seconds, 1)}
    return {**shape, "status": status, "grown_mib": grown}


def picture(rng: random.Random) -> str:
    """A data URI of about three kilobytes."""
    stream = io.BytesIO()
    Image.frombytes("RGB", (31, 31), rng.randbytes(31 * 31 * 3)).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def fill(url: str, jobs: int) -> int:
    """Jobs of a thousand ended queries each; how many queries in all."""
    schema.upgrade(url)
    db = open_database(url)
    policy = Policy()
    body = json.dumps({"question": "How many?", "images": [], "choices": [], "context": [], "policy": {}})
    for number in range(jobs):
        job_id = f"batch_{number:06d}{secrets.token_hex(6)}"
        with db.write() as conn:
            values = {"id": job_id, "project_id": "default", "status": "completed", "model": "scripted"}
            rest = {"policy": policy.to_mapping(), "policy_digest": policy.digest, "created_at": float(number)}
            conn.execute(insert(Job.__table__).values(**values, **rest, source="batch", line_format="openai"))
            done = {"total": QUERIES_EACH, "done": QUERIES_EACH}
            conn.execute(insert(JobCounters.__table__).values(job_id=job_id, **done))
            rows = [NewQuery(place, f"q-{place}", body, "{}") for place in range(1, QUERIES_EACH + 1)]
            insert_queries(conn, job_id, rows, float(number))
    with db.write() as conn:
        conn.exec_driver_sql("ANALYZE")
    db.close()
    return jobs * QUERIES_EACH


def lists(address: str) -> dict[str, Any]:
    """Milliseconds of lists and single looks, connection kept."""
    with httpx.Client(base_url=address) as http:
        ids = [item["id"] for item in http.get("/v1/batches?limit=100").json()["data"]]
        middle = http.get(f"/v1/batches?limit=100&after={ids[-1]}").json()["data"][-1]["id"]
        paths = {
            "list_20": lambda: "/v1/batches",
            "list_100": lambda: "/v1/batches?limit=100",
            "list_100_further_down": lambda: f"/v1/batches?limit=100&after={middle}",
            "retrieve": lambda: f"/v1/batches/{random.choice(ids)}",
            "queries_100": lambda: f"/api/jobs/{random.choice(ids)}/queries?limit=100&after=500",
            "files": lambda: "/v1/files?limit=100",
        }
        return {name: spread([timed(http, path) for _ in range(40)], "ms") for name, path in paths.items()}


def timed(http: httpx.Client, path: Callable[[], str]) -> float:
    """Milliseconds of one GET."""
    start = time.perf_counter()
    http.get(path()).raise_for_status()
    return (time.perf_counter() - start) * 1000


def spread(values: list[float], unit: str) -> dict[str, Any]:
    """Median and the worst twentieth."""
    ordered = sorted(values)
    return {
        f"median_{unit}": round(statistics.median(ordered), 1),
        f"p95_{unit}": round(ordered[int(len(ordered) * 0.95) - 1], 1),
        "count": len(ordered),
    }


def memory(process: int) -> dict[str, float]:
    """Resident MiB of the processes below one, by the command that they run."""
    found: dict[str, float] = {}
    listed = subprocess.check_output(["ps", "-eo", "pid=,ppid=,rss=,args="], text=True).splitlines()
    rows = [text.split(None, 3) for text in listed]
    family = {process}
    for _ in range(4):
        family |= {int(pid) for pid, parent, *_ in rows if int(parent) in family}
    for pid, _, rss, args in rows:
        if int(pid) in family and "orchestrator.cli" in args:
            name = args.split()[-1]
            found[name] = max(found.get(name, 0.0), int(rss) / 1024)
    return found


def wait_for(look: Callable[[], bool], timeout_s: float, pause_s: float = 0.05) -> None:
    """Return when `look` is true. Raises TimeoutError."""
    end = time.monotonic() + timeout_s
    while not look():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(pause_s)


if __name__ == "__main__":
    main()
