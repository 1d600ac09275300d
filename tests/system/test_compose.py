"""compose.yaml is what the specification allows, starts nothing without secrets, and its commands run a job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema
import pytest
from PIL import Image

from tests.system.composed import COMPOSE, Composed, load
from tests.system.conftest import SECRETS
from tests.system.driving import Client, write_questions
from tests.waiting import wait_until

SCHEMA = Path(__file__).parent / "compose-spec.json"


def test_matches_the_compose_specification() -> None:
    schema = json.loads(SCHEMA.read_text())
    # The schema names the draft of 2019-09 by an address of its own; it uses nothing newer than draft 7.
    jsonschema.Draft7Validator(schema).validate(load(SECRETS))


@pytest.mark.parametrize("name", sorted(set(SECRETS) - {"STAGEBEAM_MODEL"}))
def test_no_secret_has_a_default(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        load({key: value for key, value in SECRETS.items() if key != name})


def test_names_every_part() -> None:
    services = load(SECRETS)["services"]
    assert {"postgres", "broker", "objects", "prepare", "api", "orchestrator", "worker-gpu", "worker-cpu"} <= set(
        services
    )
    device = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert (services["worker-gpu"]["profiles"], services["worker-cpu"]["profiles"]) == (["gpu"], ["cpu"])
    assert "noeviction" in services["broker"]["command"]
    assert "--appendonly" in services["broker"]["command"]
    for name in ("postgres", "broker", "objects", "api"):
        assert services[name]["healthcheck"]["test"], name
    for volume in ("postgres", "broker", "objects"):
        assert services[volume]["volumes"][0].partition(":")[0] in load(SECRETS)["volumes"]


def test_every_command_exists() -> None:
    services = load(SECRETS)["services"].values()
    ours = {service["command"][1] for service in services if service.get("command", [None])[:1] == ["stagebeam"]} - {
        "scheduler"
    }
    nouns = {path.stem for path in (COMPOSE.parent / "orchestrator" / "cli").glob("*.py")}
    assert ours <= nouns


def test_publishes_on_loopback_alone() -> None:
    services = load(SECRETS)["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8000:8000"]
    assert "minio" not in COMPOSE.read_text().lower()


@pytest.fixture
def client(composed: Composed) -> Iterator[Client]:
    composed.run("prepare")
    for service in ("api", "orchestrator", "worker-cpu"):
        composed.start(service)
    with Client(f"http://127.0.0.1:{composed.environment('api')['STAGEBEAM_PORT']}", composed.key()) as client:
        wait_until(client.ready, 25, what=f"the API is ready: {composed.logs()}")
        yield client


def test_the_commands_of_compose_run_a_job(composed: Composed, client: Client, tmp_path: Path) -> None:
    refused = httpx.get(f"{client.url}/api/jobs")
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    questions = write_questions(tmp_path / "in.jsonl", 8, image="red.png")
    job = json.loads(composed_cli(composed, client, "job", "submit", str(questions), "--wait", "--json"))
    assert (job["status"], job["counts"]["done"]) == ("completed", 8), composed.logs()
    output = tmp_path / "out.jsonl"
    composed_cli(composed, client, "job", "results", job["id"], "-o", str(output), "--trace")
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == [f"q{i}" for i in range(8)]
    assert all(len(line["trace"]["stages"]) == 4 for line in lines)


def composed_cli(composed: Composed, client: Client, *command: str) -> str:
    composed.extra = {"STAGEBEAM_URL": client.url, "STAGEBEAM_API_KEY": client.token}
    return composed.run("prepare", *command)
