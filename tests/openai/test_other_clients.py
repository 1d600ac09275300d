"""What takes long: other versions of the client, Node, Schemathesis over our own document, races (items 6, 8, 15).

Marked slow, so `make test-slow` runs them. They install those clients with pip and npm into folders of their own and
need a package index; the test of the Node client is skipped where npm is not installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch

from tests.openai.wire import ENDPOINT, jsonl, line, make_client
from tests.waiting import wait_until

HERE = Path(__file__).parent
RACES_AT_ONCE = 12
EXPECTED = {
    "filename": "input.jsonl",
    "status": "completed",
    "counts": [4, 4, 0],
    "listed": True,
    "names": ["q-0", "q-1", "q-2", "q-3"],
    "answer": True,
    "stream": True,
    "refused": "batch_not_cancellable",
    "missing": "not_found",
    "deleted": True,
}


def run(command: list[str], **given: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, **given)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def installed(folder: Path, *packages: str) -> Path:
    """A virtual environment with these packages; its interpreter."""
    run([sys.executable, "-m", "venv", str(folder)])
    run([str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *packages])
    return folder / "bin"


def test_a_session_of_this_version(live: str):
    found = json.loads(run([sys.executable, str(HERE / "session.py"), live]))
    assert {name: found[name] for name in EXPECTED} == EXPECTED


@pytest.mark.slow
@pytest.mark.parametrize("packages", [("openai==2.8.0",), ("openai==1.109.1",), ("openai==1.30.0", "httpx<0.28")])
def test_older_versions(live: str, tmp_path: Path, packages: tuple[str, ...]):
    python = installed(tmp_path / "venv", *packages) / "python"
    found = json.loads(run([str(python), str(HERE / "session.py"), live]))
    assert found.pop("version") == packages[0].partition("==")[2]
    assert found == EXPECTED


@pytest.mark.slow
def test_the_node_client(live: str, tmp_path: Path):
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    run(["npm", "init", "-y"], cwd=tmp_path)
    run(["npm", "install", "--silent", "openai"], cwd=tmp_path)
    found = json.loads(run(["node", str(HERE / "session.mjs"), live, str(tmp_path)]))
    assert found == EXPECTED


@pytest.mark.slow
def test_litellm(live: str, tmp_path: Path):
    python = installed(tmp_path / "venv", "litellm>=1.60,<2") / "python"
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # else it asks a server of its own for prices
    found = json.loads(run([str(python), str(HERE / "session_litellm.py"), live], env=environment))
    assert found == {name: EXPECTED[name] for name in ("status", "counts", "listed", "names", "deleted")}


@pytest.mark.slow
def test_schemathesis_over_our_own_document(live: str, tmp_path: Path):
    program = installed(tmp_path / "venv", "schemathesis>=4,<5") / "schemathesis"
    command = [str(program), "run", f"{live}/api/openapi.json", "--url", live, "--include-path-regex", "^/v1/"]
    checks = "not_a_server_error,content_type_conformance,response_headers_conformance,response_schema_conformance"
    run([*command, "--checks", checks, "--max-examples", "30", "--no-color", "--request-timeout", "30"], cwd=tmp_path)


@pytest.mark.slow
def test_a_thousand_cancels_that_race_the_end_of_real_batches(live: str):
    """Batches cancelled at any moment of their short life: status, times, counts and files agree every time."""
    text = jsonl(*(line(number, search={"candidates": 2}) for number in range(2)))
    with make_client(live) as client, ThreadPoolExecutor(RACES_AT_ONCE) as pool:
        file = client.files.create(file=text, purpose="batch")
        lives: deque[float] = deque([0.5], maxlen=50)
        ended = Counter(pool.map(lambda number: race(client, file.id, number, lives), range(1000)))
    assert ended.total() == 1000
    assert min(ended["completed"], ended["cancelled"]) >= 100, ended


def race(client: openai.OpenAI, file_id: str, number: int, lives: deque[float]) -> str:
    """Cancel one batch at a moment drawn from the length of those before; how it ended."""
    start = time.monotonic()
    batch = client.batches.create(
        input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h", metadata={"n": str(number)}
    )
    time.sleep(random.Random(number).uniform(0, 1.3 * statistics.median(tuple(lives))))
    with contextlib.suppress(openai.BadRequestError):
        client.batches.cancel(batch.id)

    def last() -> Batch | None:
        found = client.batches.retrieve(batch.id)
        return found if found.status in ("completed", "cancelled") else None

    done = wait_until(last, 60.0, pause=0.05)
    if done.status == "completed":
        lives.append(time.monotonic() - start)
    check_agreement(client, done)
    return done.status


def check_agreement(client: openai.OpenAI, batch: Batch) -> None:
    counts = batch.request_counts
    assert counts is not None
    files = [client.files.content(name).text if name else "" for name in (batch.output_file_id, batch.error_file_id)]
    names = [json.loads(item)["custom_id"] for text in files for item in text.splitlines()]
    assert len(set(names)) == len(names) == counts.total
    assert (counts.completed, counts.failed) == (files[0].count("\n"), files[1].count("\n"))
    assert (batch.completed_at is None) == (batch.status == "cancelled") == (batch.cancelled_at is not None)
