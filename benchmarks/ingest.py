"""Lines per second and peak memory of ingest, on Postgres and SQLite, for both line forms and growing files.

Every line shares a few stored images, as in a job of many questions about the same pictures. Each measurement
runs in a process of its own, so that its peak memory is its own. On a machine with other work the figures mean
little unless that work is kept out (`chrt -r 1` before the command); the result says how it was run. Run
`python -m benchmarks.ingest`; the result goes to `benchmarks/results/ingest.json`.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import platform
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog
from PIL import Image

from orchestrator.intake.ingest import ingest
from orchestrator.intake.validate import LineFormat
from orchestrator.submit import JobRequest, submit
from storage import blobs, files, schema
from storage.database import Database, open_database
from storage.objects import ObjectStore, open_objects
from storage.settings import Settings
from tests.services.postgres import private_postgres

RESULT = Path(__file__).parent / "results" / "ingest.json"
IMAGES = 50
QUESTION = "Subtract all tiny shiny balls and purple objects. How many objects are left?"


def main() -> None:
    """Measure, print one line for each database and length, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--one", nargs=3, metavar=("URL", "DATA", "JOB"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder, private_postgres() as postgres:
        for kind in ("postgresql", "sqlite"):
            for lines in options.lines:
                for form in FORMS:
                    rounds = []
                    for number in range(options.rounds):
                        data = Path(folder) / f"{kind}-{form}-{lines}-{number}"
                        url = postgres.url(postgres.create()) if kind == "postgresql" else f"sqlite:///{data}.db"
                        rounds.append(measure_apart(url, data, lines, form))
                    results.append(summary(kind, form, lines, rounds))
                    print(
                        f"{kind:10} {form:6} {lines:9,} lines: {results[-1]['lines_per_s']:8,.0f} lines/s, peak "
                        f"{results[-1]['peak_mib']:.0f} MiB, of it {results[-1]['grown_mib']:.0f} MiB while ingesting"
                    )
    machine = {"machine": platform.machine(), "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    machine |= {"real_time": os.sched_getscheduler(0) == os.SCHED_RR, "python": platform.python_version()}
    machine["rounds"] = options.rounds
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({**machine, "ingest": results}, indent=2) + "\n")


def measure_apart(url: str, data: Path, lines: int, form: LineFormat) -> dict[str, Any]:
    """Prepare a job, then ingest it in a process of its own."""
    schema.upgrade(url)
    settings = Settings(data_dir=data)
    db = open_database(url)
    job_id = prepare(db, open_objects(settings), settings, lines, form)
    db.close()
    command = [sys.executable, "-m", "benchmarks.ingest", "--one", url, str(data), job_id]
    return dict(json.loads(subprocess.check_output(command)))


def prepare(db: Database, objects: ObjectStore, settings: Settings, lines: int, form: LineFormat) -> str:
    """Store images and an input file, submit the job, return its id."""
    hashes = []
    with db.write() as conn:
        for number in range(IMAGES):
            stream = io.BytesIO()
            Image.new("RGB", (32, 32), (number, 0, 0)).save(stream, "PNG")
            hashes.append(blobs.put_blob(conn, objects, stream.getvalue(), "image/png", 32, 32, 0.0))
    file_id = f"file_{secrets.token_hex(8)}"
    objects.put(f"files/{file_id}", written(lines, hashes, FORMS[form]))
    with db.write() as conn:
        files.create(
            conn,
            id=file_id,
            project_id="default",
            purpose="batch",
            filename="in.jsonl",
            bytes=objects.size(f"files/{file_id}"),
            sha256="0" * 64,
            object_key=f"files/{file_id}",
            now=time.time(),
        )
        request = JobRequest(project_id="default", input_file_id=file_id, model="scripted", line_format=form)
        return submit(conn, request, settings, time.time(), lambda prefix: f"{prefix}_{secrets.token_hex(8)}")


def written(lines: int, hashes: list[str], form: Callable[[str, str], dict[str, Any]]) -> Iterator[bytes]:
    """The input file in pieces."""
    for start in range(0, lines, 1000):
        numbers = range(start, min(start + 1000, lines))
        made = (form(f"scene-{number:08d}", f"blob:{hashes[number % len(hashes)]}") for number in numbers)
        yield b"".join(json.dumps(line).encode() + b"\n" for line in made)


def native_line(custom_id: str, image: str) -> dict[str, Any]:
    """A line of the form of our own."""
    rest = {"choices": ["2", "3", "4", "5"], "answer": "B"}
    return {"custom_id": custom_id, "question": QUESTION, "images": [image], **rest}


def chat_line(custom_id: str, image: str) -> dict[str, Any]:
    """A line as the OpenAI Batch API takes it."""
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": image}}]
    body = {"model": "scripted", "messages": [{"role": "user", "content": parts}], "max_tokens": 512}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


FORMS: Mapping[LineFormat, Callable[[str, str], dict[str, Any]]] = {"native": native_line, "openai": chat_line}


def measure(url: str, data: str, job_id: str) -> dict[str, Any]:
    """Ingest one job in this process: seconds, and memory before and at its peak."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    settings = Settings(data_dir=Path(data))
    db, objects = open_database(url), open_objects(settings)
    with db.read():
        before = peak_mib()
    start = time.perf_counter()
    result = ingest(db, objects, settings, job_id, time.time)
    seconds = time.perf_counter() - start
    assert result.outcome == "running", result
    return {"seconds": seconds, "lines": result.lines, "before_mib": before, "peak_mib": peak_mib()}


def peak_mib() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def summary(kind: str, form: str, lines: int, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds."""
    return {
        "database": kind,
        "form": form,
        "lines": lines,
        "lines_per_s": statistics.median(lines / one["seconds"] for one in rounds),
        "peak_mib": statistics.median(one["peak_mib"] for one in rounds),
        "grown_mib": statistics.median(one["peak_mib"] - one["before_mib"] for one in rounds),
        "rounds": rounds,
    }


if __name__ == "__main__":
    main()
