"""Limits to a batch, and what clients do by themselves when an answer is lost or late (conformance items 4 to 7, 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
from openai.types import Batch

from orchestrator.dispatch import dispatch
from orchestrator.reconcile import reconcile
from stagebeam import Client
from storage.database import Database
from storage.objects import open_objects
from tests.openai.wire import ENDPOINT, Wire, jsonl, line, served, settings_of

GIVEN: dict[str, Any] = {"endpoint": ENDPOINT, "completion_window": "24h"}
HOSTED_LINES = 50_000
"""What hosted services take at most."""
FEW_LINES = 2_500
"""A limit that is set, above what is written at once."""


@contextmanager
def wire_with(db: Database, folder: Path, **settings: Any) -> Iterator[Wire]:
    chosen = settings_of(folder / "data", **settings)
    objects = open_objects(chosen)
    with served(chosen, db, objects) as url:
        wire = Wire(url, chosen, db, objects)
        yield wire
        for client in wire.clients:
            client.close()


def many(count: int) -> bytes:
    question = {"model": "scripted", "messages": [{"role": "user", "content": "?"}]}
    lines = ({"custom_id": f"q{n}", "method": "POST", "url": ENDPOINT, "body": question} for n in range(count))
    return b"".join(orjson.dumps(item) + b"\n" for item in lines)


def test_more_lines_than_hosted_services_take_pass_unless_a_setting_says_otherwise(
    sqlite_database: Database, tmp_path: Path
):
    refused = ingested(sqlite_database, tmp_path, FEW_LINES + 1, max_lines=FEW_LINES)
    assert refused.status == "failed"
    assert refused.errors is not None
    assert [(error.code, error.line) for error in refused.errors.data or ()] == [("too_many_tasks", FEW_LINES + 1)]
    taken = ingested(sqlite_database, tmp_path, HOSTED_LINES + 1)
    assert taken.status == "in_progress"
    assert taken.request_counts is not None
    assert taken.request_counts.total == HOSTED_LINES + 1


def ingested(db: Database, folder: Path, count: int, **settings: Any) -> Batch:
    """A batch of so many lines once they were taken in, or were not."""
    with wire_with(db, folder, **settings) as wire:
        client = wire.client()
        file = client.files.create(file=many(count), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, **GIVEN)
        wire.ingest(batch.id)
        return client.batches.retrieve(batch.id)


def test_a_model_that_is_not_there_is_refused_where_names_are_strict(sqlite_database: Database, tmp_path: Path):
    with wire_with(sqlite_database, tmp_path, strict_models=True) as wire:
        client = wire.client()
        file = client.files.create(file=jsonl(line(1, model="gpt-none")), purpose="batch")
        with pytest.raises(openai.NotFoundError) as error:
            client.batches.create(input_file_id=file.id, **GIVEN)
        assert error.value.code == "model_not_found"
        assert client.batches.list().data == []


def test_an_expired_batch_cannot_be_cancelled(wire: Wire):
    client, stack = wire.client(), wire.stack
    file = client.files.create(file=jsonl(line(1)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, **GIVEN)
    wire.ingest(batch.id)
    stack.now += 90_000
    reconcile(wire.db, stack.settings, stack.wire.depth, stack.now)
    stack.run(batch.id)
    assert client.batches.retrieve(batch.id).status == "expired"
    with pytest.raises(openai.BadRequestError) as error:
        client.batches.cancel(batch.id)
    assert error.value.code == "batch_not_cancellable"


@pytest.mark.parametrize(("search", "late_s"), [({"deadline_s": 60}, 100.0), ({}, 90_000.0)])
def test_a_line_out_of_time_answers_with_the_best_so_far(wire: Wire, search: dict[str, Any], late_s: float):
    """Its own time, or the window of the batch: with a conclusion drawn and not judged yet, that one is the answer."""
    client, stack = wire.client(), wire.stack
    file = client.files.create(file=jsonl(line(1)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, **GIVEN, extra_body={"search": {"candidates": 8, **search}})
    wire.ingest(batch.id)
    stack.send(dispatch(wire.db, stack.settings, stack.now).outgoing)
    with stack.worker() as pipeline:
        while not [call for call in stack.calls(batch.id) if (call.stage, call.status) == ("conclusion", "done")]:
            stack.deliver(pipeline, stack.wire.messages.popleft())
    stack.now += late_s
    stack.run(batch.id)
    done = client.batches.retrieve(batch.id)
    assert (done.status, done.error_file_id) == ("completed", None)
    choice = orjson.loads(client.files.content(done.output_file_id or "").content)["response"]["body"]["choices"][0]
    assert (choice["finish_reason"], choice["search"]["degraded_reason"]) == ("length", "deadline")
    assert choice["message"]["content"]


class Failing(httpx.HTTPTransport):
    """A way to the server on which each POST goes through, and its first answer becomes another."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        super().__init__()
        self.answer = answer
        self.met: list[tuple[str, str]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if request.method != "POST":
            return response
        first = request.url.path not in [path for path, _ in self.met]
        self.met.append((request.url.path, request.headers["x-stainless-retry-count"]))
        if not first:
            return response
        response.read()
        return self.answer(request)


@pytest.mark.parametrize("status", [408, 409, 500, 503])
def test_an_answer_that_became_an_error_makes_no_second_file_or_batch(wire: Wire, status: int):
    way = Failing(lambda request: httpx.Response(status, headers={"retry-after-ms": "1"}, request=request))
    with openai.OpenAI(base_url=f"{wire.url}/v1", api_key="x", http_client=httpx.Client(transport=way)) as client:
        file = client.files.create(file=jsonl(line(1)), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, **GIVEN)
        assert [item.id for item in client.batches.list()] == [batch.id]
        assert [item.id for item in client.files.list()] == [file.id]
    assert way.met == [("/v1/files", "0"), ("/v1/files", "1"), ("/v1/batches", "0"), ("/v1/batches", "1")]


def test_a_client_that_is_told_when_to_come_again_passes_then(wire: Wire):
    """429 with `retry-after` and `retry-after-ms`: the client waits as long as it says and is let through."""
    asked: list[int] = []
    key = wire.key("busy", requests_per_minute=120)
    client = wire.client(key, max_retries=2)
    client._client.event_hooks["response"].append(lambda response: asked.append(response.status_code))
    while 429 not in asked:
        client.models.list()
        assert len(asked) < 1000
    assert asked[-1] == 200, "the request that was refused passed when it was sent again"


def test_an_upload_of_our_own_client_that_was_refused_for_its_rate_is_sent_again_whole(wire: Wire):
    key = wire.key("busy", requests_per_minute=60)
    with httpx.Client(base_url=wire.url, headers={"authorization": f"Bearer {key}"}) as http:
        while http.get("/v1/models").status_code != 429:
            pass
    with Client(wire.url, key) as client:
        file_id = client.upload([{"custom_id": "x", "question": "?" * 3_000_000}])
    assert wire.client(key, max_retries=2).files.retrieve(file_id).bytes > 3_000_000
