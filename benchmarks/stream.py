"""Resident memory of API, orchestrator and worker over the whole life of a large file, by phase and file size.

A file of chat lines, each with an image of its own, goes the whole way on Postgres and Redis: upload, ingest, search,
finalize, download of the output. What is claimed is that no process grows with the file. Each size runs in fresh
processes; what grows for a while are caches of fixed size (64 MiB of images in the worker, 20,000 checked images in the
orchestrator), so that the tenths of each phase are told too: they level off. The scripted engine costs nothing.

Run `python -m benchmarks.stream`; the result goes to `benchmarks/results/stream.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import httpx
import orjson

from benchmarks.memory import peak_bytes, resident_bytes
from benchmarks.throughput import running, service_environment, stagebeam, wait, workers_ready
from benchmarks.wire import create, line, picture, wait_for
from storage import schema
from storage.database import open_database
from storage.objects.s3 import S3Store
from storage.settings import Settings
from tests.services.postgres import private_postgres
from tests.services.processes import free_port
from tests.services.redis import private_redis
from tests.services.s3 import private_s3

RESULT = Path(__file__).parent / "results" / "stream.json"
SERVICES = ("api", "orchestrator", "worker")
BUCKET = "stream"
LOOK_S = 0.2
"""Between two looks at the memory of the processes."""
LONGEST_S = 3600.0
MIB = 2**20


def main() -> None:
    """Measure every store and size, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 50_000], help="lines of each file")
    parser.add_argument("--stores", nargs="+", choices=["folder", "s3"], default=["folder"])
    parser.add_argument("--candidates", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = []
    for store in options.stores:
        for size in options.sizes:
            rows.append(measure(store, size, options.candidates))
            print(json.dumps(rows[-1]), flush=True)
    report = {
        "what": "resident MiB of each process by phase, one file from upload to download, scripted engine at no cost",
        "candidates": options.candidates,
        "files": rows,
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "versions": {name: version(name) for name in ("celery", "sqlalchemy", "psycopg", "fastapi", "boto3")},
        "python": platform.python_version(),
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


@dataclass
class Watch:
    """Looks at the memory of some processes from the side, phase by phase."""

    processes: Mapping[str, int]
    """Process ids by name."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each phase took."""
    _seen: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    _phase: str = ""
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look until the block ends."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What is seen inside the block belongs to this phase."""
        started = time.monotonic()
        self._seen[name] = [self._look()]
        self._phase = name
        try:
            yield
        finally:
            self._phase = ""
            self._seen[name].append(self._look())
            self.seconds[name] = round(time.monotonic() - started, 1)

    def found(self) -> dict[str, Any]:
        """Of each phase its seconds, and of each process the most, and what it held at each tenth of the phase."""
        phases: dict[str, Any] = {}
        for name, looks in self._seen.items():
            at = [looks[round(tenth * (len(looks) - 1) / 10)] for tenth in range(11)]
            phases[name] = {"seconds": self.seconds[name]} | {
                process: {"peak": max(look[process] for look in looks), "tenths": [look[process] for look in at]}
                for process in self.processes
            }
        return phases

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            if looks := self._seen.get(self._phase):
                looks.append(self._look())

    def _look(self) -> dict[str, float]:
        return {name: round(resident_bytes(pid) / MIB, 1) for name, pid in self.processes.items()}


def measure(store: str, size: int, candidates: int) -> dict[str, Any]:
    """One file of `size` lines through fresh services."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(private_postgres())
        url = postgres.url(postgres.create())
        schema.upgrade(url)
        broker = stack.enter_context(private_redis(folder))
        port = free_port()
        env = service_environment(url, broker, slots=64) | {"STAGEBEAM_PORT": str(port)}
        env |= {"STAGEBEAM_OBJECT_STORE": str(folder / "objects")} if store == "folder" else bucket(stack, folder)
        pids = {name: stack.enter_context(running([stagebeam(), name], env)).pid for name in SERVICES}
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600))
        wait(lambda: answers(http))
        db = open_database(url)
        wait(lambda: workers_ready(db))
        db.close()
        file = stack.enter_context(tempfile.TemporaryFile())
        write_file(file, size)
        watch = Watch(pids)
        with watch.looking():
            done = whole_way(http, watch, file, {"candidates": candidates})
        peaks = {name: round(peak_bytes(pid) / MIB, 1) for name, pid in pids.items()}
        return {
            "store": store,
            "lines": size,
            "bytes": file.tell(),
            **done,
            "peak_mib": peaks,
            "phases_mib": watch.found(),
        }


def bucket(stack: ExitStack, folder: Path) -> dict[str, str]:
    """Environment of a bucket on an S3 server that lives as long as the stack."""
    endpoint = stack.enter_context(private_s3(folder))
    settings = {
        "object_store": f"s3://{BUCKET}",
        "s3_endpoint_url": endpoint,
        "s3_access_key_id": "key",
        "s3_secret_access_key": "secret",
    }
    S3Store(Settings.model_validate(settings), bucket=BUCKET, prefix="").make_bucket()
    return {f"STAGEBEAM_{name.upper()}": value for name, value in settings.items()}


def answers(http: httpx.Client) -> bool:
    """Whether the API is up."""
    try:
        return http.get("/health/ready").is_success
    except httpx.TransportError:
        return False


def write_file(file: IO[bytes], size: int) -> None:
    """Lines of about four kilobytes, each with its own image."""
    rng = random.Random(0)
    for number in range(size):
        file.write(json.dumps(line(number, picture(rng))).encode() + b"\n")


def whole_way(http: httpx.Client, watch: Watch, file: IO[bytes], search: Mapping[str, Any]) -> dict[str, Any]:
    """Upload, ingest, run, finalize and download; what came back. Raises AssertionError when a line is missing."""
    with watch.phase("idle"):
        time.sleep(2 * LOOK_S)
    file.seek(0)
    with watch.phase("upload"):
        batch = create(http, file, search=dict(search))
    for name, status in (("ingest", "validating"), ("run", "in_progress"), ("finalize", "finalizing")):
        with watch.phase(name):
            wait_for(partial(is_past, http, batch, status), LONGEST_S, pause_s=0.1)
    ended = show(http, batch)
    with watch.phase("download"):
        lines, received = downloaded(http, ended["output_file_id"])
    counts = ended["request_counts"]
    assert ended["status"] == "completed", ended
    assert counts == {"total": lines, "completed": lines, "failed": 0}, (counts, lines)
    return {"status": ended["status"], "answers": lines, "output_bytes": received}


def is_past(http: httpx.Client, batch: str, status: str) -> bool:
    """Whether the batch has left a state."""
    return bool(show(http, batch)["status"] != status)


def show(http: httpx.Client, batch: str) -> dict[str, Any]:
    """The batch object."""
    return dict(http.get(f"/v1/batches/{batch}").raise_for_status().json())


def downloaded(http: httpx.Client, file_id: str) -> tuple[int, int]:
    """Distinct answers in an output file, and its bytes."""
    seen: set[str] = set()
    received = 0
    with http.stream("GET", f"/v1/files/{file_id}/content", follow_redirects=True) as response:
        response.raise_for_status()
        for text in response.iter_lines():
            received += len(text.encode()) + 1
            document = orjson.loads(text)
            assert document["response"]["status_code"] == 200, document
            seen.add(document["custom_id"])
    return len(seen), received


if __name__ == "__main__":
    main()
