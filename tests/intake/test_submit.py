from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.models import model_profile
from orchestrator.submit import JobRequest, check, submit
from reasoning.errors import BadInput
from reasoning.policy import Policy
from storage.database import open_database
from storage.tables import Blob
from tests.intake.jobs_of import Stack, new_id, stack
from tests.intake.lines_of import chat, native, png, text


@pytest.fixture
def here(sqlite_url: str, tmp_path: Path) -> Any:
    database = open_database(sqlite_url)
    found = stack(database, tmp_path)
    (tmp_path / "images" / "a.png").write_bytes(png(1))
    (tmp_path / "images" / "b.png").write_bytes(png(2))
    yield found
    database.close()


def model_folder(tmp_path: Path, content: Any) -> str:
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    (folder / "stagebeam.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder)


def test_policy_is_defaults_then_model_then_request(here: Stack, tmp_path: Path):
    model = model_folder(tmp_path, {"prompts": "compact", "policy": {"candidates": 2, "temperature": 1.0}})
    request = JobRequest(
        project_id="default", input_file_id=here.upload(b"x"), model=model, policy={"temperature": 0.2}
    )
    with here.db.write() as conn:
        job = submit(conn, request, here.settings, 10.0, new_id)
    row = here.job(job)
    policy = Policy(candidates=2, temperature=0.2)
    assert (row.policy, row.policy_digest) == (policy.to_mapping(), policy.digest)
    assert (row.status, row.model, row.created_at, row.expires_at) == ("validating", model, 10.0, None)
    assert here.counts(job) == {}
    assert model_profile(model).prompts == "compact"


def test_what_is_not_said_comes_from_the_settings(here: Stack):
    request = JobRequest(project_id="default", input_file_id=here.upload(b"x"), completion_window_s=60.0)
    with here.db.write() as conn:
        job = submit(conn, request, here.settings, 10.0, new_id)
    assert (here.job(job).model, here.job(job).expires_at) == (here.settings.model, 70.0)


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"input_file_id": "file_none"}, "file_not_found", "input_file_id"),
        ({"project_id": "other"}, "file_not_found", "input_file_id"),
        ({"policy": {"candidats": 1}}, "unknown_field", "policy.candidats"),
        ({"policy": {"strategy": "best"}}, "unknown_strategy", "policy.strategy"),
        ({"priority": "bach"}, "invalid_value", "priority"),
        ({"on_bad_line": "ignore"}, "invalid_value", "on_bad_line"),
        ({"line_format": "csv"}, "invalid_value", "line_format"),
        ({"source": "x"}, "invalid_value", "source"),
        ({"name": "a\x1b[1m"}, "invalid_value", "name"),
        ({"name": "a" * 201}, "invalid_value", "name"),
        ({"weight": 0.0}, "invalid_value", "weight"),
        ({"weight": float("nan")}, "invalid_value", "weight"),
        ({"completion_window_s": -1.0}, "invalid_value", "completion_window_s"),
        ({"attributes": {"a": "b" * 20_000}}, "invalid_value", "attributes"),
        ({"attributes": {"a": object()}}, "invalid_value", "attributes"),
    ],
)
def test_a_bad_request_writes_nothing(here: Stack, changes: dict[str, Any], code: str, field: str):
    request = JobRequest(**{"project_id": "default", "input_file_id": here.upload(b"x"), **changes})
    with pytest.raises(BadInput) as caught, here.db.write() as conn:
        submit(conn, request, here.settings, 10.0, new_id)
    assert (caught.value.code, caught.value.field) == (code, field)


@pytest.mark.parametrize("content", ["{", "[]", {"policy": []}, {"prompts": "fancy"}, {"policy": {"candidates": 0}}])
def test_a_bad_profile_is_named(tmp_path: Path, content: Any):
    with pytest.raises(BadInput) as caught:
        model_profile(model_folder(tmp_path, content))
    assert caught.value.code == "invalid_model_profile"


@pytest.mark.parametrize("name", ["scripted", "org/model", "openai:http://x#m", "a\0b"])
def test_models_without_a_profile_have_an_empty_one(name: str):
    assert model_profile(name).policy == {}


def test_a_dry_run_tells_everything_and_writes_nothing(here: Stack):
    lines = [
        native("a", images=["a.png", "b.png"], choices=["x", "y"], answer="A"),
        native("b", images=["a.png"], policy={"candidates": 1}),
        chat("c"),
        native("d", images=["none.png"]),
        b"{",
    ]
    request = JobRequest(project_id="default", input_file_id=here.upload(text(*lines)), policy={"candidates": 2})
    report = check(here.db, here.objects, request, here.settings, lambda: 10.0).to_json()
    assert (report["lines"], report["accepted"], report["refused"], report["error_count"]) == (5, 3, 2, 2)
    assert [error["line"] for error in report["errors"]] == [4, 5]
    assert (report["images"], report["distinct_images"]) == (3, 2)
    assert report["fields"] == {"question": 3, "images": 2, "choices": 1, "answer": 1, "policy": 1}
    assert report["forms"] == {"native": 2, "openai": 1}
    cost = report["cost"]
    assert (cost["queries"], cost["candidates_min"]) == (3, 4 * (2 + 1 + 2))
    with here.db.read() as conn:
        assert conn.execute(Blob.__table__.select()).all() == []
    assert not list(here.objects.list("b")), "neither blobs nor bundles"


def test_a_dry_run_of_an_empty_file_says_so(here: Stack):
    request = JobRequest(project_id="default", input_file_id=here.upload(b""))
    report = check(here.db, here.objects, request, here.settings, lambda: 10.0)
    assert [error.code for error in report.errors] == ["empty_file"]
