"""What every route does alike: the error envelope, ids, access, limits, and nothing of the inside."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from orchestrator.api.app import make_api
from orchestrator.exposure import refuse_unsafe
from reasoning.errors import BadInput
from storage.database import open_database
from storage.objects import open_objects
from storage.settings import Settings
from tests.api.conftest import Server, line, png
from tests.engine.reference import ask, generate
from workers.app import make_app
from workers.heartbeat import Heartbeat


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/nowhere", 404, "not_found"),
        ("DELETE", "/api/jobs", 405, "method_not_allowed"),
        ("GET", "/api/jobs?limit=0", 422, "invalid_request"),
        ("GET", "/api/jobs/job_none", 404, "not_found"),
        ("POST", "/api/jobs/job_none/cancel", 404, "not_found"),
        ("GET", "/api/jobs/job_none/results", 404, "not_found"),
        ("GET", "/api/queries/1", 404, "not_found"),
        ("GET", "/api/queries/x", 422, "invalid_request"),
        ("GET", "/api/files/file_none", 404, "not_found"),
        ("POST", "/api/workers/none/drain", 404, "not_found"),
        ("POST", "/api/files", 400, "empty_file"),
        ("GET", "/health/ready", 503, "unavailable"),
        ("GET", "/api/jobs/job%00", 400, "bad_address"),
        ("GET", "/api/jobs?name=%00", 400, "bad_address"),
        ("GET", f"/api/queries/{2**70}", 422, "invalid_request"),
        ("GET", f"/api/jobs/job_none/queries?after={2**40}", 422, "invalid_request"),
    ],
)
def test_every_failure_has_the_envelope(server: Server, method: str, path: str, status: int, code: str) -> None:
    answer = server.http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert {"message", "type", "param", "code"} <= set(answer.json()["error"])
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_request_id_of_the_client_is_kept(server: Server) -> None:
    assert server.http.get("/health/live", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    forged = server.http.get("/health/live", headers={"x-request-id": "a b\tc"}).headers["x-request-id"]
    assert forged.startswith("req_")


def test_a_defect_says_nothing_of_the_inside(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr("orchestrator.api.reads.jobs_page", broken)
    with capture_logs() as logs:
        answer = server.http.get("/api/jobs")
    assert [entry["action"] for entry in logs] == ["api.defect"]
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "", "169.254.1.1"])
def test_another_host_is_refused_on_loopback(server: Server, host: str) -> None:
    answer = server.http.get("/api/jobs", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "bad_host")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:8000"])
def test_loopback_names_are_answered(server: Server, host: str) -> None:
    assert server.http.get("/health/live", headers={"host": host}).json() == {"status": "ok"}


def test_the_first_key_ends_the_open_door(server: Server) -> None:
    assert server.http.get("/api/jobs").status_code == 200
    mine = server.key()
    refused = server.http.get("/api/jobs")
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
    assert server.http.get("/api/jobs", headers=mine).status_code == 200
    assert server.http.get("/health/live").status_code == 200


def test_roles(server: Server) -> None:
    viewer = server.key(role="viewer")
    assert server.http.get("/api/jobs", headers=viewer).status_code == 200
    body = {"lines": [line("a")], "model": "scripted"}
    refused = server.http.post("/api/jobs", json=body, headers=viewer)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_role")


def test_another_projects_things_are_not_there(server: Server) -> None:
    job_id = server.submit(1)
    server.run(job_id)
    job = server.http.get(f"/api/jobs/{job_id}").json()
    query_id = server.http.get(f"/api/jobs/{job_id}/queries").json()["data"][0]["id"]
    stranger = server.key("other")
    for path in (
        f"/api/jobs/{job_id}",
        f"/api/jobs/{job_id}/results",
        f"/api/jobs/{job_id}/queries",
        f"/api/queries/{query_id}",
        f"/api/queries/{query_id}/trace",
        f"/api/files/{job['output_file_id']}",
        f"/api/files/{job['output_file_id']}/content",
    ):
        assert server.http.get(path, headers=stranger).status_code == 404, path
    for action in ("cancel", "retry", "pause", "resume"):
        assert server.http.post(f"/api/jobs/{job_id}/{action}", headers=stranger).status_code == 404
    body = {"file_id": job["input_file_id"], "model": "scripted"}
    assert server.http.post("/api/jobs", json=body, headers=stranger).status_code == 404
    assert server.http.get("/api/jobs", headers=stranger).json()["data"] == []


def test_a_body_too_large_is_cut_off(server: Server) -> None:
    claimed = server.http.post("/api/jobs", content=b"x" * 5000)
    assert (claimed.status_code, claimed.json()["error"]["code"]) == (413, "body_too_large")
    streamed = server.http.put(f"/api/blobs/{'a' * 64}", content=(b"x" * 1000 for _ in range(9)))
    assert (streamed.status_code, streamed.json()["error"]["code"]) == (413, "body_too_large")


def test_blobs_are_stored_once_and_checked(server: Server) -> None:
    data = png()
    sha256 = hashlib.sha256(data).hexdigest()
    assert server.http.post("/api/blobs/missing", json={"sha256": [sha256]}).json() == {"missing": [sha256]}
    assert server.http.put(f"/api/blobs/{'b' * 64}", content=data).json()["error"]["code"] == "hash_mismatch"
    for _ in range(2):
        assert server.http.put(f"/api/blobs/{sha256}", content=data).json()["media_type"] == "image/png"
    assert server.http.post("/api/blobs/missing", json={"sha256": [sha256]}).json() == {"missing": []}
    stranger = server.key("other")
    asked = server.http.post("/api/blobs/missing", json={"sha256": [sha256]}, headers=stranger)
    assert asked.json() == {"missing": [sha256]}, "what another project sent is not told"
    owner = server.key("default")
    text = b"no image"
    refused = server.http.put(f"/api/blobs/{hashlib.sha256(text).hexdigest()}", content=text, headers=owner)
    assert refused.json()["error"]["code"] == "image_unsupported_format"


def test_files_come_raw_or_as_a_form(server: Server) -> None:
    raw = server.http.post("/api/files?filename=in.jsonl", content=b"{}\n").json()
    form = server.http.post("/api/files", files={"file": ("in.jsonl", b"{}\n")}).json()
    assert (raw["filename"], raw["bytes"], raw["sha256"]) == (form["filename"], form["bytes"], form["sha256"])
    assert server.http.get(f"/api/files/{form['id']}/content").content == b"{}\n"
    missing = server.http.post("/api/files", files={"other": ("in.jsonl", b"{}\n")})
    assert missing.json()["error"]["code"] == "missing_file"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "scripted"}, None),
        ({"lines": [{}], "file_id": "f"}, None),
        ({"lines": [{}], "policy": {"candidats": 3}}, "policy.candidats"),
        ({"lines": [{}], "policy": {"candidates": 0}}, "policy.candidates"),
        ({"lines": [{}], "priority": "soon"}, "priority"),
        ({"lines": [{}], "nope": 1}, "nope"),
        ({"lines": [{}], "model": "a\0b"}, "model"),
        ({"lines": [{}], "name": "a\0b"}, "name"),
        ({"file_id": "file_none"}, "input_file_id"),
    ],
)
def test_a_bad_submission_names_the_field(server: Server, body: dict[str, object], param: str | None) -> None:
    answer = server.http.post("/api/jobs", json=body)
    assert answer.status_code in (400, 404, 422)
    assert answer.json()["error"]["param"] == param


def test_metrics_and_the_description(server: Server) -> None:
    server.submit(2)
    text = server.http.get("/metrics").text
    assert 'stagebeam_jobs{status="running"} 1.0' in text
    assert 'stagebeam_open_queries{status="waiting"} 2.0' in text
    assert "/api/jobs/{job_id}/results" in server.http.get("/api/openapi.json").json()["paths"]
    assert server.http.get("/docs").status_code == 404


def test_metrics_tell_what_each_engine_counts(server: Server) -> None:
    with server.stack.worker() as pipeline:
        pipeline.engine.generate(generate(ask("What?"), {}, seeds=(1, 2))).result()
        counted = pipeline.engine.counters().values
        heart = Heartbeat(server.stack.db, pipeline, model="scripted", threads=1, obey=lambda _wish: None)
        heart.enroll()
        heart.beat()
        text = server.http.get("/metrics").text
        heart.move("stopped")
    assert counted["generated_tokens"] > 0
    for name, count in counted.items():
        assert f'stagebeam_engine_{name}_total{{model="scripted",worker="worker-1"}} {count}' in text
    assert "stagebeam_engine" not in server.http.get("/metrics").text


def test_read_only(sqlite_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, broker_url="redis://127.0.0.1:1/0", read_only=True)
    db = open_database(sqlite_url)
    with TestClient(
        make_api(settings, db, open_objects(settings), make_app(settings)), base_url="http://127.0.0.1"
    ) as http:
        assert http.get("/api/jobs").status_code == 200
        assert http.post("/api/files", content=b"x").json()["error"]["code"] == "read_only"
    db.close()


def test_an_open_address_needs_a_secret(settings: Settings) -> None:
    refuse_unsafe(settings)
    with pytest.raises(BadInput, match="STAGEBEAM_SECRET_KEY"):
        refuse_unsafe(Settings(data_dir=settings.data_dir, host="0.0.0.0"))
