"""A job survives the death of every process and the loss of the broker's content, with the output of a quiet run."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from PIL import Image

from tests.system.composed import Composed
from tests.system.conftest import SECRETS
from tests.system.driving import Client
from tests.waiting import wait_until

QUERIES = 500
QUICK = {
    "STAGEBEAM_LEASE_S": "2",
    "STAGEBEAM_HEARTBEAT_S": "0.5",
    "STAGEBEAM_RECONCILE_S": "0.5",
    "STAGEBEAM_RESEND_S": "1",
    "STAGEBEAM_VISIBILITY_TIMEOUT_S": "6",
}
"""So that what a death leaves behind is taken up within seconds; the shipped values only make it slower."""

SERVICES = ("api", "orchestrator", "worker-cpu")


@pytest.fixture
def client(composed: Composed) -> Iterator[Client]:
    composed.extra = QUICK
    composed.run("prepare")
    for service in SERVICES:
        composed.start(service)
    with Client(f"http://127.0.0.1:{composed.environment('api')['STAGEBEAM_PORT']}", composed.key()) as client:
        wait_until(client.ready, 25, what=f"the API is ready: {composed.logs()}")
        yield client


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_five_hundred_queries_survive_everything(composed: Composed, client: Client, tmp_path: Path) -> None:
    file_id = client.upload(_questions(tmp_path))
    quiet = client.submit(file_id, policy={"seed": 7})
    _ends(composed, client, quiet)

    shaken = client.submit(file_id, policy={"seed": 7})
    _reaches(client, shaken, 60)
    composed.kill("worker-cpu")
    composed.start("worker-cpu")
    _reaches(client, shaken, 180)
    composed.kill("orchestrator")
    composed.start("orchestrator")
    _reaches(client, shaken, 320)
    _flush(composed)
    _ends(composed, client, shaken)

    job = client.job(shaken)
    assert (job["status"], job["counts"]["done"]) == ("completed", QUERIES), job
    said, wanted = _said(client.output(shaken)), _said(client.output(quiet))
    assert {name: (said.get(name), wanted[name]) for name in wanted if said.get(name) != wanted[name]} == {}
    assert len(said) == QUERIES
    assert job["usage"]["kept"] == client.job(quiet)["usage"]["kept"]


def _questions(folder: Path) -> bytes:
    Image.new("RGB", (16, 16), "blue").save(folder / "blue.png")
    image = "data:image/png;base64," + base64.b64encode((folder / "blue.png").read_bytes()).decode()
    lines = ({"custom_id": f"q{i}", "question": f"What is {i}?", "images": [image]} for i in range(QUERIES))
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _ends(composed: Composed, client: Client, job_id: str) -> None:
    try:
        wait_until(lambda: client.ended(job_id), 120, what="the job ended")
    except AssertionError:
        pytest.fail(f"{client.job(job_id)['counts']} after 120 s\n{composed.logs()}")


def _reaches(client: Client, job_id: str, count: int) -> None:
    wait_until(lambda: client.finished(job_id) >= count, 90, what=f"{count} queries ended")
    assert not client.ended(job_id), "the job was over before it could be disturbed"


def _flush(composed: Composed) -> None:
    url = composed.environment("api")["STAGEBEAM_BROKER_URL"]
    with redis.Redis.from_url(url, password=SECRETS["BROKER_PASSWORD"]) as client:
        client.flushall()


def _said(lines: list[dict[str, Any]]) -> dict[str, str]:
    """Line by line all that does not depend on clocks, on what a worker has cached, or on who was idle when."""
    usage = ("kept_tokens", "discarded_tokens", "generated_tokens", "judged_tokens", "candidates", "verdicts")
    return {
        line["custom_id"]: json.dumps(
            [line["status"], line["answer"], line["error"], [line["usage"][name] for name in usage]]
        )
        for line in lines
    }
