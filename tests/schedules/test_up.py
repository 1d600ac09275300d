"""As a new user would: a folder of scenes under `stagebeam up`, one image more, one query computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.running.up import Up, up
from tests.waiting import wait_until


def picture(folder: Path, number: int) -> None:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (32, 32), (number * 40, 80, 120)).save(folder / f"{number}.png")


def stagebeam(stack: Up, *words: str) -> Any:
    command = [sys.executable, "-m", "orchestrator.cli", *words, "--json"]
    environment = {**os.environ, "STAGEBEAM_URL": stack.url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return (
        [json.loads(line) for line in done.stdout.splitlines()]
        if words[1] in ("slots", "list")
        else json.loads(done.stdout)
    )


def finished(stack: Up, count: int) -> list[dict[str, Any]]:
    """Slots that ran, newest first, once there are so many and nothing is under way."""

    def look() -> list[dict[str, Any]]:
        rows = httpx.get(f"{stack.url}/api/schedules/minutely/slots").json()["data"]
        assert not [row for row in rows if row["status"] in ("pending", "fired")], rows
        ran = [row for row in rows if row["status"] != "skipped"]  # a slot of the rule may have met a run by hand
        assert len(ran) >= count
        return ran

    rows = wait_until(look, 60, what=f"{count} slots that ran")
    assert {row["status"] for row in rows} == {"done"}, rows
    return rows


@pytest.mark.timeout(240)
def test_one_image_more_is_one_query_more(tmp_path: Path):
    scenes = tmp_path / "scenes"
    for number in range(3):
        picture(scenes, number)
    with up(tmp_path / "data") as stack:
        stagebeam(stack, "dataset", "create", "scenes", str(scenes), "--question", "How many?", "--candidates", "2")
        made = stagebeam(stack, "schedule", "create", "minutely", "--dataset", "scenes", "--every", "1m")
        assert made["sentence"] == "Every minute"
        stagebeam(stack, "schedule", "run", "minutely")
        assert finished(stack, 1)[-1]["report"]["computed"] == 3
        picture(scenes, 3)
        stagebeam(stack, "schedule", "run", "minutely")
        newest = finished(stack, 2)[0]
        # A slot of the rule may have come between; whichever came first computed the one new row.
        computed = [slot["report"]["computed"] for slot in finished(stack, 2)]
        assert sum(computed) == 4
        assert (newest["report"]["rows"], newest["report"]["reused"] + newest["report"]["computed"]) == (4, 4)
        assert "1 of 4 rows computed, 3 reused" in httpx.get(f"{stack.url}/schedules/minutely").text
        listed = stagebeam(stack, "schedule", "list")
        assert listed[0]["state"] == "active"
