"""As a new user would: a folder of scenes under `stagebeam up`, one image more, one query computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.running.command import typed
from tests.waiting import wait_until


def picture(folder: Path, number: int) -> None:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (32, 32), (number * 40, 80, 120)).save(folder / f"{number}.png")


def stagebeam(url: str, *words: str) -> Any:
    done = typed(*words, "--json", URL=url)
    assert done.returncode == 0, done.stderr
    return (
        [json.loads(line) for line in done.stdout.splitlines()]
        if words[1] in ("slots", "list")
        else json.loads(done.stdout)
    )


@pytest.fixture
def url(live: str) -> Iterator[str]:
    """The running stack, on which the schedule fires no more once the test has ended."""
    yield live
    typed("schedule", "pause", "minutely", URL=live)


def finished(url: str, count: int) -> list[dict[str, Any]]:
    """Slots that ran, newest first, once there are so many and nothing is under way."""

    def look() -> list[dict[str, Any]]:
        rows = httpx.get(f"{url}/api/schedules/minutely/slots").json()["data"]
        assert not [row for row in rows if row["status"] in ("pending", "fired")], rows
        ran = [row for row in rows if row["status"] != "skipped"]  # a slot of the rule may have met a run by hand
        assert len(ran) >= count
        return ran

    rows = wait_until(look, 60, what=f"{count} slots that ran")
    assert {row["status"] for row in rows} == {"done"}, rows
    return rows


@pytest.mark.timeout(240)
def test_one_image_more_is_one_query_more(url: str, tmp_path: Path):
    scenes = tmp_path / "scenes"
    for number in range(3):
        picture(scenes, number)
    stagebeam(url, "dataset", "create", "scenes", str(scenes), "--question", "How many?", "--candidates", "2")
    made = stagebeam(url, "schedule", "create", "minutely", "--dataset", "scenes", "--every", "1m")
    assert made["sentence"] == "Every minute"
    stagebeam(url, "schedule", "run", "minutely")
    assert finished(url, 1)[-1]["report"]["computed"] == 3
    picture(scenes, 3)
    stagebeam(url, "schedule", "run", "minutely")
    newest = finished(url, 2)[0]
    # A slot of the rule may have come between; whichever came first computed the one new row.
    computed = [slot["report"]["computed"] for slot in finished(url, 2)]
    assert sum(computed) == 4
    assert (newest["report"]["rows"], newest["report"]["reused"] + newest["report"]["computed"]) == (4, 4)
    assert "1 of 4 rows computed, 3 reused" in httpx.get(f"{url}/schedules/minutely").text
    listed = stagebeam(url, "schedule", "list")
    assert listed[0]["state"] == "active"
