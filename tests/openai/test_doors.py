"""Errors, keys, roles, limits and rates (conformance items 10 and 11, and the limits of a project)."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import update

from orchestrator.api.app import make_api
from orchestrator.api.bodies import JsonRoute
from orchestrator.dispatch import dispatch
from orchestrator.expiry import remove_expired
from orchestrator.limits import checked_limits
from reasoning.errors import BadInput
from storage import access
from storage.tables import File
from tests.openai.wire import ENDPOINT, Wire, check_types, jsonl, line, make_client, served, settings_of
from workers.app import make_app

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/nothing", None, 404),
        ("PUT", "/v1/batches", None, 405),
        ("DELETE", "/v1/chat/completions", None, 405),
        ("POST", "/v1/batches", b"{", 400),
        ("POST", "/v1/batches", b'{"search": {"judge": "\\ud800"}}', 400),
        ("POST", "/v1/batches", b'{"metadata": {"a": "\\u0000"}}', 400),
        ("POST", "/v1/batches", b'{"weight": NaN}', 400),
        ("POST", "/v1/batches", b'{"search": ' + b"[" * 100_000, 400),
        ("POST", "/v1/batches", b'{"foo": 1}', 422),
        ("POST", "/v1/chat/completions", b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        ("POST", "/v1/chat/completions", b'{"messages": [{"role": "user", "content": "\\u0000"}]}', 400),
        ("POST", "/api/jobs", b'{"lines": [{"question": "\\ud800"}]}', 400),
        ("POST", "/v1/batches", b"[]", 422),
        ("POST", "/v1/batches", b"{}", 422),
        ("POST", "/v1/chat/completions", b"\xff", 400),
        ("POST", "/v1/files", b"x", 400),
        ("GET", "/v1/batches?limit=0", None, 422),
        ("GET", "/v1/batches?limit=x", None, 422),
        ("GET", "/v1/batches/batch_none", None, 404),
        ("POST", "/v1/batches/batch_none/cancel", None, 404),
        ("GET", "/v1/files/file-none/content", None, 404),
        ("GET", "/v1/models/none/of/these", None, 404),
    ],
)
def test_every_failure_has_the_envelope(wire: Wire, method: str, path: str, body: bytes | None, status: int):
    with httpx.Client(event_hooks={"response": [check_types]}, timeout=30) as http:
        answer = http.request(method, wire.url + path, content=body, headers=JSON)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_the_first_key_closes_the_open_door(wire: Wire):
    assert wire.client("anything").batches.list().data == []
    key = wire.key("default", "viewer")
    with pytest.raises(openai.AuthenticationError) as error:
        wire.client("anything").batches.list()
    assert error.value.code == "invalid_api_key"
    assert wire.client(key).batches.list().data == []
    with pytest.raises(openai.PermissionDeniedError):
        wire.client(key).files.create(file=b"x", purpose="batch")
    with wire.db.write() as conn:
        row = access.list_keys(conn)[0]
        access.revoke_key(conn, row.id, 5.0)
    with pytest.raises(openai.AuthenticationError):
        wire.client(key).batches.list()


def test_a_body_may_be_empty_where_none_is_needed(wire: Wire):
    file = wire.client().files.create(file=jsonl(line(1)), purpose="batch")
    answer = httpx.delete(f"{wire.url}/v1/files/{file.id}", headers=JSON, timeout=30)
    assert answer.json() == {"id": file.id, "object": "file", "deleted": True}


def test_head_is_get_without_its_body(wire: Wire):
    file = wire.client().files.create(file=jsonl(line(1)), purpose="batch")
    there = ("/v1/files", f"/v1/files/{file.id}", f"/v1/files/{file.id}/content", f"/api/files/{file.id}/content")
    others = (
        "/v1/batches",
        "/v1/batches/batch_none",
        "/v1/models",
        "/api/jobs",
        "/health/live",
        "/",
        "/jobs",
        "/v1/none",
    )
    with httpx.Client(base_url=wire.url, timeout=30) as http:  # one connection: a body too many would show
        for path in (*there, *others):
            head, full = http.head(path), http.get(path)
            assert full.status_code < 500, "without a broker too"
            told, expected = (
                {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
                for answer in (head, full)
            )
            assert (head.status_code, head.content, told) == (full.status_code, b"", expected), path
        assert http.head("/v1/chat/completions").status_code == 405
        part = http.head(there[2], headers={"range": "bytes=0-9"})
        assert (part.status_code, part.headers["content-length"]) == (206, "10")


def test_requests_a_minute_are_limited_with_retry_after(wire: Wire):
    client = wire.client(wire.key("busy", requests_per_minute=3))
    for _ in range(3):
        client.batches.list()
    with pytest.raises(openai.RateLimitError) as error:
        client.batches.list()
    assert error.value.code == "rate_limit_exceeded"
    assert 1 <= int(error.value.response.headers["retry-after"]) <= 20
    assert wire.client(wire.key("calm")).batches.list().data == []


def test_all_api_processes_count_together(wire: Wire):
    key = wire.key("busy", requests_per_minute=3)
    other = settings_of(wire.settings.data_dir)
    with served(other, wire.db, wire.objects) as url, make_client(url, key) as second:
        first = wire.client(key)
        for client in (first, second, first):
            client.batches.list()
        for client in (first, second, second):
            with pytest.raises(openai.RateLimitError):
                client.batches.list()


def test_storage_is_limited(wire: Wire):
    client = wire.client(wire.key("small", storage_bytes=1000))
    kept = client.files.create(file=b"x" * 900, purpose="batch")
    with pytest.raises(openai.PermissionDeniedError) as error:
        client.files.create(file=b"y" * 200, purpose="batch")
    assert error.value.code == "storage_limit_exceeded"
    headers = {"authorization": f"Bearer {client.api_key}"}
    inline = {"lines": [{"custom_id": "q", "question": "y" * 200}]}
    with httpx.Client(base_url=wire.url, headers=headers, timeout=30) as http:
        for answer in (http.post("/api/files", content=b"y" * 200), http.post("/api/jobs", json=inline)):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "storage_limit_exceeded")
    assert [entry.key for entry in wire.objects.list("files/")] == [f"files/{kept.id}"]
    client.files.delete(kept.id)
    client.files.create(file=b"y" * 200, purpose="batch")


def test_queued_tokens_are_limited(any_wire: Wire):
    client = any_wire.client(any_wire.key("thrifty", queued_tokens=4 * 3 * 4 * 2048))
    batches = []
    for count in (1, 9):
        file = client.files.create(file=jsonl(*(line(n) for n in range(count))), purpose="batch")
        batches.append(client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h"))
        any_wire.ingest(batches[-1].id)
    first, second = (client.batches.retrieve(batch.id) for batch in batches)
    assert first.status == "in_progress"
    assert second.status == "failed"
    assert second.errors is not None
    (error,) = second.errors.data or ()
    assert error.code == "token_limit_exceeded"
    assert "may generate 884736 tokens and the project's other open jobs 98304" in (error.message or "")


def test_queries_in_flight_are_limited_by_project(any_wire: Wire):
    clients = [any_wire.client(any_wire.key("narrow", queries_in_flight=3)), any_wire.client(any_wire.key("wide"))]
    batches = []
    for client in (clients[0], clients[0], clients[1]):
        file = client.files.create(file=jsonl(*(line(n) for n in range(5))), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", metadata={"n": str(len(batches))}
        )
        any_wire.ingest(batch.id)
        batches.append(batch.id)
    stack = any_wire.stack
    for _ in range(2):
        dispatch(any_wire.db, stack.settings, stack.now)
        running = [stack.job(batch_id).running for batch_id in batches]
        assert running[0] + running[1] == 3
        assert running[2] == 5


def test_limits_are_checked_when_they_are_set():
    assert checked_limits({"queued_tokens": 5, "storage_bytes": None}) == {"queued_tokens": 5}
    with pytest.raises(BadInput, match="queued_tokens"):
        checked_limits({"queue_tokens": 5})
    for bad in (0, True, "5", -1):
        with pytest.raises(BadInput, match="whole number"):
            checked_limits({"storage_bytes": bad})


def test_expired_files_are_removed(any_wire: Wire):
    client = any_wire.client()
    expiry: Any = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=b"x", purpose="batch", expires_after=expiry)
    kept = client.files.create(file=("other", b"x"), purpose="batch")
    now = any_wire.stack.now
    assert remove_expired(any_wire.db, any_wire.objects, now) == 0
    assert remove_expired(any_wire.db, any_wire.objects, now + 4000) == 1
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    assert client.files.content(kept.id).content == b"x", "its bytes are shared"


def test_an_expired_file_and_one_whose_bytes_are_gone_are_not_there(wire: Wire):
    client = wire.client()
    over, lost = (client.files.create(file=(name, name.encode()), purpose="batch").id for name in ("over", "lost"))
    wire.objects.delete(f"files/{lost}")
    with wire.db.write() as conn:
        conn.execute(update(File.__table__).where(File.__table__.c.id == over).values(expires_at=1.0))
    batch = {"input_file_id": over, "endpoint": ENDPOINT, "completion_window": "24h"}
    with httpx.Client(base_url=wire.url, timeout=30) as http:
        answers = [
            http.get(f"{place}/{over}{part}") for place in ("/v1/files", "/api/files") for part in ("", "/content")
        ]
        answers += [http.get(f"{place}/{lost}/content") for place in ("/v1/files", "/api/files")]
        for path, body in (
            ("/v1/batches", batch),
            ("/api/jobs", {"file_id": over}),
            ("/api/datasets", {"file_id": over}),
        ):
            answers.append(http.post(path, json=body))
    assert [answer.status_code for answer in answers] == [404] * 9


def test_every_route_with_a_json_body_reads_it_strictly(wire: Wire):
    app = make_api(wire.settings, wire.db, wire.objects, make_app(wire.settings))
    routers = [route.original_router for route in app.routes if hasattr(route, "original_router")]
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    bodied = [route for route in routes if route.body_field is not None]
    assert len(bodied) > 10
    assert [route.path for route in bodied if not isinstance(route, JsonRoute)] == []


def test_a_character_that_cannot_be_stored_is_named_by_its_place(wire: Wire):
    body = {"model": "m", "messages": [{"role": "user", "content": "a\0b"}]}
    error = httpx.post(f"{wire.url}/v1/chat/completions", json=body, timeout=30).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "messages.0.content")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_json_body_under_another_name_is_refused_by_its_type(wire: Wire, kind: str):
    """What `curl -d` sends unless it is told otherwise."""
    answer = httpx.post(f"{wire.url}/v1/batches", content=b"{}", headers={"content-type": kind}, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (415, "unsupported_media_type")
    assert "application/json" in error["message"]
