"""The scripts in `examples/`, run as their first lines say, in a process that knows of nothing but address and key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running.up import up

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str, **environment: str) -> list[str]:
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def quick_start(url: str) -> list[str]:
    first, *answers = example("openai_batch.py", OPENAI_BASE_URL=f"{url}/v1", OPENAI_API_KEY="anything")
    assert "completed BatchRequestCounts(completed=4, failed=0, total=4)" in first
    return answers


def test_the_quick_start_of_batches(live: str):
    assert len([line for line in quick_start(live) if len(line.rpartition("? ")[2]) > 0]) == 4


def test_the_json_api_from_the_standard_library(live: str):
    assert '"status":"done"' in "".join(example("submit_over_http.py", STAGEBEAM_URL=live))


@pytest.mark.slow
def test_the_demo_model_answers_the_quick_start(tmp_path: Path):
    with up(tmp_path / "data", model="demo") as stack:
        answers = quick_start(stack.url)
    right = {"red thing? cube", "large cube? yellow", "cubes are there? 2", "left? 1"}
    assert sum(any(line.endswith(end) for line in answers) for end in right) >= 3
