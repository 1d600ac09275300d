"""Lines per second and peak memory of ingest, on Postgres and SQLite, for both line forms and growing files.

Lines share a few stored images, as in a job of many questions about the same pictures, or each brings an image of its
own as a data URI, which is decoded, hashed and stored on the way. Each measurement runs in a process of its own, so
that its peak memory is its own. On a machine with other work the figures mean little unless that work is kept out
(`chrt -r 1` before the command); the result says how it was run. Run `python -m benchmarks.ingest`; the result goes to
`benchmarks/results/ingest.json`.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import logging
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from PIL import Image

from benchmarks.ingest_floor import LIMITS, floor
from benchmarks.memory import peak_bytes
from orchestrator.intake.ingest import ingest
from orchestrator.intake.keeper import BlobKeeper
from orchestrator.intake.pictures import inspect
from orchestrator.intake.validate import LineFormat
from orchestrator.submit import JobRequest, submit
from storage import files, schema
from storage.database import Database, open_database
from storage.objects import ObjectStore, open_objects
from storage.settings import Settings
from tests.services.postgres import private_postgres

RESULT = Path(__file__).parent / "results" / "ingest.json"
IMAGES = 50
OWN_LINES = 10_000
"""Lines of the files in which each has its own image."""
FLOOR_LINES = 2000
"""Lines whose steps are measured one by one."""
QUESTION = "Subtract all tiny shiny balls and purple objects. How many objects are left?"


def main() -> None:
    """Measure, print one line for each database and length, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--own-lines", type=int, default=OWN_LINES, help="lines of files with an image each")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--one", nargs=3, metavar=("URL", "DATA", "JOB"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    floors = [indispensable(case) for case in OWN]
    results: list[dict[str, Any]] = []
    cases = [(case, lines) for lines in options.lines for case in SHARED]
    cases += [(case, options.own_lines) for case in OWN]
    with tempfile.TemporaryDirectory() as folder, private_postgres() as postgres:
        for kind in ("postgresql", "sqlite"):
            for case, lines in cases:
                rounds = []
                for number in range(options.rounds):
                    data = Path(folder) / f"{kind}-{len(results)}-{number}"
                    url = postgres.url(postgres.create()) if kind == "postgresql" else f"sqlite:///{data}.db"
                    rounds.append(measure_apart(url, data, lines, case))
                results.append(summary(kind, case, lines, rounds))
                print(told(results[-1]), flush=True)
    machine = {"machine": platform.machine(), "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    machine |= {"real_time": os.sched_getscheduler(0) == os.SCHED_RR, "python": platform.python_version()}
    machine["rounds"] = options.rounds
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({**machine, "indispensable": floors, "ingest": results}, indent=2) + "\n")


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of input file."""

    form: LineFormat
    images: str
    """What images its lines have, in words."""
    image: Callable[[int, list[str]], str]
    """The image of a line, by its number and the hashes of those that are stored."""


def indispensable(case: Case) -> dict[str, Any]:
    """What a line of this kind costs at the least."""
    lines = [json.dumps(chat_line(f"scene-{n:08d}", case.image(n, []))).encode() for n in range(FLOOR_LINES)]
    with tempfile.TemporaryDirectory() as folder:
        found = {"images": case.images, **floor(lines, Path(folder))}
    print(f"{case.images}: {found['cpu_us_in_all']} us a line cannot be done without: {found['cpu_us']}", flush=True)
    return found


def measure_apart(url: str, data: Path, lines: int, case: Case) -> dict[str, Any]:
    """Prepare a job, then ingest it in a process of its own."""
    schema.upgrade(url)
    settings = Settings(data_dir=data)
    db = open_database(url)
    job_id = prepare(db, open_objects(settings), settings, lines, case)
    db.close()
    command = [sys.executable, "-m", "benchmarks.ingest", "--one", url, str(data), job_id]
    return dict(json.loads(subprocess.check_output(command)))


def prepare(db: Database, objects: ObjectStore, settings: Settings, lines: int, case: Case) -> str:
    """Store images and an input file, submit the job, return its id."""
    keeper = BlobKeeper(db, objects, "default", time.time)
    pictures = []
    for number in range(IMAGES):
        stream = io.BytesIO()
        Image.new("RGB", (32, 32), (number, 0, 0)).save(stream, "PNG")
        pictures.append(inspect(stream.getvalue(), LIMITS))
        keeper.upload(pictures[-1], stream.getvalue())
    keeper.record(pictures)
    hashes = [picture.sha256 for picture in pictures]
    file_id = f"file_{secrets.token_hex(8)}"
    objects.put(f"files/{file_id}", written(lines, hashes, case))
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
        request = JobRequest(project_id="default", input_file_id=file_id, model="scripted", line_format=case.form)
        return submit(conn, request, settings, time.time(), lambda prefix: f"{prefix}_{secrets.token_hex(8)}")


def written(lines: int, hashes: list[str], case: Case) -> Iterator[bytes]:
    """The input file in pieces."""
    line = native_line if case.form == "native" else chat_line
    for start in range(0, lines, 100):
        numbers = range(start, min(start + 100, lines))
        made = (line(f"scene-{number:08d}", case.image(number, hashes)) for number in numbers)
        yield b"".join(json.dumps(one).encode() + b"\n" for one in made)


def native_line(custom_id: str, image: str) -> dict[str, Any]:
    """A line of the form of our own."""
    rest = {"choices": ["2", "3", "4", "5"], "answer": "B"}
    return {"custom_id": custom_id, "question": QUESTION, "images": [image], **rest}


def chat_line(custom_id: str, image: str) -> dict[str, Any]:
    """A line as the OpenAI Batch API takes it."""
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": image}}]
    body = {"model": "scripted", "messages": [{"role": "user", "content": parts}], "max_tokens": 512}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def shared(number: int, hashes: list[str]) -> str:
    """One of the stored images."""
    return f"blob:{hashes[number % len(hashes)]}"


def own_png(number: int, _hashes: list[str]) -> str:
    """A PNG of noise, 31 x 31, about 3,000 bytes: nearly all of its cost is that it is one more image."""
    image = Image.frombytes("RGB", (31, 31), random.Random(number).randbytes(31 * 31 * 3))
    return data_uri(image, "PNG")


def own_jpeg(number: int, _hashes: list[str]) -> str:
    """A JPEG of soft noise, 336 x 336, about 24,000 bytes: as large as models see a picture."""
    image = Image.frombytes("RGB", (42, 42), random.Random(number).randbytes(42 * 42 * 3))
    return data_uri(image.resize((336, 336), Image.Resampling.BICUBIC), "JPEG")


def data_uri(image: Image.Image, kind: str) -> str:
    """The image as a line carries it."""
    stream = io.BytesIO()
    image.save(stream, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


SHARED = tuple(Case(form, f"{IMAGES} shared, stored before", shared) for form in ("native", "openai"))
OWN = (
    Case("openai", "one each, PNG 31 x 31, 3 kB", own_png),
    Case("openai", "one each, JPEG 336 x 336, 24 kB", own_jpeg),
)


def measure(url: str, data: str, job_id: str) -> dict[str, Any]:
    """Ingest one job in this process: seconds, and memory before and at its peak."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    settings = Settings(data_dir=Path(data))
    db, objects = open_database(url), open_objects(settings)
    with db.read():
        before = peak_mib()
    start, spent = time.perf_counter(), time.process_time()
    result = ingest(db, objects, settings, job_id, time.time)
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    assert result.outcome == "running", result
    return {
        "seconds": seconds,
        "cpu_seconds": spent,
        "lines": result.lines,
        "before_mib": before,
        "peak_mib": peak_mib(),
    }


def peak_mib() -> float:
    """The most memory that this process has held so far."""
    return peak_bytes(os.getpid()) / 2**20


def summary(kind: str, case: Case, lines: int, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds."""
    return {
        "database": kind,
        "form": case.form,
        "images": case.images,
        "lines": lines,
        "lines_per_s": statistics.median(lines / one["seconds"] for one in rounds),
        "cpu_us_per_line": statistics.median(1e6 * one["cpu_seconds"] / lines for one in rounds),
        "peak_mib": statistics.median(one["peak_mib"] for one in rounds),
        "grown_mib": statistics.median(one["peak_mib"] - one["before_mib"] for one in rounds),
        "rounds": rounds,
    }


def told(row: dict[str, Any]) -> str:
    """One row of the result in words."""
    return (
        f"{row['database']:10} {row['form']:6} {row['lines']:9,} lines, images {row['images']}: "
        f"{row['lines_per_s']:8,.0f} lines/s, {row['cpu_us_per_line']:.0f} us CPU a line, "
        f"peak {row['peak_mib']:.0f} MiB, of it {row['grown_mib']:.0f} MiB grown"
    )


if __name__ == "__main__":
    main()
