"""Webhooks: signed as the client verifies them, repeated with back-off, never where they may not go (item 12)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from orchestrator.outbox import BACK_OFF_S, Courier
from orchestrator.webhooks import Sender, allowed_addresses, signed_headers
from reasoning.errors import BadInput
from storage import outbox
from storage.objects import open_objects
from tests.openai.wire import ENDPOINT, Wire, jsonl, line, served, settings_of

SECRET = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


class Receiver(HTTPServer):
    """Keeps what it is sent and answers with the statuses it is told, 200 when they are used up."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?x=1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["content-length"]))
        server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(server.statuses.pop(0) if server.statuses else 200)
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        return


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def batch_with_hook(wire: Wire, url: str, text: bytes = jsonl(line(1))) -> str:
    client = wire.client()
    file = client.files.create(file=text, purpose="batch")
    hook = {"webhook": {"url": url, "secret": SECRET}}
    return client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", extra_body=hook).id


def test_the_end_of_a_batch_is_told_and_the_client_verifies_it(any_wire: Wire, receiver: Receiver):
    good, bad = (batch_with_hook(any_wire, receiver.url, text) for text in (jsonl(line(1)), b"{}\n"))
    any_wire.run(good)
    any_wire.ingest(bad)
    courier = Courier(any_wire.db, any_wire.settings, lambda: any_wire.stack.now + 100)
    assert courier.deliver_due() == 2
    assert courier.deliver_due() == 0
    courier.close()
    events = {}
    for headers, body in receiver.got:
        event = any_wire.client().webhooks.unwrap(body, headers, secret=SECRET)
        events[event.data.id] = event.type
    assert events == {good: "batch.completed", bad: "batch.failed"}


def test_a_receiver_that_fails_is_asked_again_later_and_at_last_given_up(wire: Wire, receiver: Receiver):
    batch = batch_with_hook(wire, receiver.url)
    wire.run(batch)
    now = [wire.stack.now + 10]
    courier = Courier(wire.db, wire.settings, lambda: now[0])
    receiver.statuses = [500, 302, 429] + [503] * 50
    for attempt, pause in enumerate(BACK_OFF_S, start=1):
        assert courier.deliver_due() == 1
        assert len(receiver.got) == attempt
        now[0] += pause - 0.5
        assert courier.deliver_due() == 0
        now[0] += 1
    assert courier.deliver_due() == 1
    with wire.db.read() as conn:
        row = outbox.of_subject(conn, "default", batch)[0]
    assert (row.delivered, row.last_error, row.attempts) == (False, "HTTP 503", len(BACK_OFF_S) + 1)
    assert row.ended_at is not None
    courier.close()


def test_a_receiver_that_wants_no_more_is_left_alone(wire: Wire, receiver: Receiver):
    batch = batch_with_hook(wire, receiver.url)
    wire.run(batch)
    receiver.statuses = [410]
    courier = Courier(wire.db, wire.settings, lambda: wire.stack.now + 10)
    courier.deliver_due()
    courier.close()
    with wire.db.read() as conn:
        assert outbox.of_subject(conn, "default", batch)[0].ended_at is not None


def test_what_cannot_be_reached_waits(wire: Wire):
    batch = batch_with_hook(wire, "http://127.0.0.1:1/")
    wire.run(batch)
    courier = Courier(wire.db, wire.settings, lambda: wire.stack.now + 10)
    assert courier.deliver_due() == 1
    courier.close()
    with wire.db.read() as conn:
        row = outbox.of_subject(conn, "default", batch)[0]
    assert row.ended_at is None
    assert "ConnectError" in row.last_error


def test_a_wrong_signature_or_an_old_one_is_refused_by_the_client():
    client = openai.OpenAI(api_key="x", webhook_secret=SECRET)
    body = b'{"id":"evt_1","object":"event","type":"batch.completed","created_at":1,"data":{"id":"b"}}'
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body, signed_headers("evt_1", 1000, body, SECRET))
    client.close()
    with pytest.raises(BadInput, match="base64"):
        signed_headers("evt_1", 1, body, "whsec_not base64!")
    assert "webhook-signature" not in signed_headers("evt_1", 1, body, None)


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "127.0.0.1", "::1", "fd00::1"])
def test_private_networks_are_not_reached(address: str):
    with (
        Sender(
            allowed_addresses(private=False, loopback=False), lambda _host, _port: ["93.184.215.14", address]
        ) as sender,
        pytest.raises(BadInput, match="private network"),
    ):
        sender.post("https://example.com/", b"", {})


@pytest.mark.parametrize("url", ["ftp://example.com/", "http://user:secret@example.com/", "http:///x"])
def test_odd_addresses_are_refused(url: str):
    with Sender(lambda _: True) as sender, pytest.raises(BadInput):
        sender.post(url, b"", {})


def test_jobs_of_the_json_api_and_the_address_of_the_settings(sqlite_database: Any, tmp_path: Path, receiver: Receiver):
    settings = settings_of(tmp_path / "data", webhook_url=receiver.url, webhook_secret=SECRET)
    objects = open_objects(settings)
    with served(settings, sqlite_database, objects) as url:
        wire = Wire(url, settings, sqlite_database, objects)
        own = {"url": receiver.url.replace("hook", "own"), "secret": SECRET}
        for given in ({}, {"webhook": own}):
            body = {"lines": [line(1)], **given}
            wire.run(httpx.post(f"{url}/api/jobs", json=body, timeout=30).json()["id"])
        courier = Courier(wire.db, settings, lambda: wire.stack.now + 100)
        assert courier.deliver_due() == 2
        courier.close()
    with openai.OpenAI(api_key="x") as client:
        kinds = [client.webhooks.unwrap(body, headers, secret=SECRET).type for headers, body in receiver.got]
    assert kinds == ["job.completed", "job.completed"]
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 2
