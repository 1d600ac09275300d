"""The first command of a newcomer, on the trained model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(180)
def test_the_demo_answers_with_and_without_search_and_shows_one_question_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "orchestrator.cli", "demo", "--count", "6", "--candidates", "2"]
    done = subprocess.run(
        [*command, "--data", str(tmp_path / "demo")], capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "of 6 with search" in said
    picture = next(line.removeprefix("picture: ") for line in said.splitlines() if line.startswith("picture: "))
    assert Path(picture).is_file()
    for part in ("SUMMARY", "CAPTION", "REASONING", "CONCLUSION", "queries     6 of 6 answered"):
        assert part in said
    for name in ("results.jsonl", "one-pass.jsonl"):
        lines = [json.loads(line) for line in (tmp_path / "demo" / name).read_text().splitlines()]
        assert [line["status"] for line in lines] == ["done"] * 6
