"""Takes the pictures of README: `make pictures`, which needs chromium with chromedriver.

Starts the stack with the demo model, submits generated scenes through the submit page, waits until all have ended
and photographs the job and one question. The question is the one, rightly answered if there is any, on
whose way the judge decided most: nothing is drawn by hand, and another model gives other pictures.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from tests.running.up import up
from tests.waiting import wait_until
from tests.web.browser import Browser, driver, session

IMAGES = Path(__file__).parent / "images"
COUNT = 24
WIDTH, TALLEST = 1280, 1500
"""Pixels of a picture; a page that is longer is cut."""
PANEL = """
    const box = document.getElementById("judge").getBoundingClientRect();
    return [box.top + scrollY - 12, box.height + 24];
"""
"""Where the judge panel lies on its page, in pixels."""
PATIENCE_S = 900


def main() -> None:
    """Take them."""
    os.environ["BROWSER_PICTURES"] = str(IMAGES)
    folder = Path(tempfile.mkdtemp(prefix="stagebeam-pictures-"))
    try:
        scenes = folder / "scenes"
        made = [sys.executable, "-m", "orchestrator.cli", "scenes", "--seed", "11", "--count", str(COUNT)]
        subprocess.run([*made, "--level", "medium", "--out", str(scenes)], check=True, stdout=subprocess.DEVNULL)
        with (
            up(folder / "data", model="demo", settings={}) as stack,
            driver(folder) as wire,
            session(wire, folder) as browser,
        ):
            job = _submit(browser, stack.url, scenes)
            api = httpx.Client(base_url=f"{stack.url}/api", trust_env=False, timeout=60)
            wait_until(lambda: api.get(f"/jobs/{job}").json()["status"] == "completed", PATIENCE_S, what="the job ends")
            _photograph(browser, f"{stack.url}/jobs/{job}", "job")
            _photograph(browser, f"{stack.url}/queries/{_telling(api, job, scenes)}", "query")
            top, height = browser.run(PANEL)
            browser.picture("judge", top=top, tallest=height)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _submit(browser: Browser, url: str, scenes: Path) -> str:
    """Submit as a person does; returns the id of the job."""
    browser.open(f"{url}/new-job")
    browser.attach("input[name=file]", scenes / "questions.jsonl")
    browser.attach_all("input[name=images]", sorted((scenes / "images").iterdir()))
    browser.fill("input[name=name]", "scenes, medium")
    browser.click(".submit-row button")
    browser.see(f"Submit {COUNT} queries", timeout=120)
    browser.click("button[formaction]")
    browser.see("was submitted", timeout=120)
    return browser.address.rpartition("/")[2].partition("?")[0]


def _telling(api: httpx.Client, job: str, scenes: Path) -> int:
    """The question to show: its answer right, then the most stages judged, then the most verdicts that held."""
    lines = map(json.loads, (scenes / "questions.jsonl").read_text().splitlines())
    known = {line["custom_id"]: str(line["answer"]) for line in lines}
    queries = api.get(f"/jobs/{job}/queries", params={"limit": COUNT}).json()["data"]

    def worth(query: dict[str, Any]) -> tuple[bool, int, int, int]:
        trace = api.get(f"/queries/{query['id']}/trace").json()["trace"]
        return (query["answer"] == known[query["custom_id"]], *_judged(trace))

    return int(max(queries, key=worth)["id"])


def _judged(trace: dict[str, Any]) -> tuple[int, int, int]:
    verdicts = [verdict for stage in trace["stages"] for verdict in stage["verdicts"]]
    judged = sum(bool(stage["verdicts"]) for stage in trace["stages"])
    held = sum(verdict["swap_agreed"] is True for verdict in verdicts)
    return judged, held, len(verdicts)


def _photograph(browser: Browser, address: str, name: str) -> None:
    browser.width(WIDTH)
    browser.open(address)
    browser.find("main h1")
    browser.picture(name, tallest=TALLEST)


if __name__ == "__main__":
    main()
