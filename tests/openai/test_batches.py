"""Create, follow, list and cancel, as the client does them (conformance items 2 to 9 and 13)."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import httpx
import openai
import orjson
import pytest
from openai.types import Batch

from orchestrator import actions
from orchestrator.api.openai.objects import batch_object
from orchestrator.dispatch import dispatch
from orchestrator.reconcile import reconcile
from storage import jobs, transitions
from tests.openai.wire import ENDPOINT, Wire, jsonl, line

EXTENDED: dict[str, Any] = {"search": {"candidates": 2, "trace": True}, "priority": "background"}


def create(client: openai.OpenAI, text: bytes, **given: Any) -> Batch:
    file = client.files.create(file=("input.jsonl", text), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", **given)


def lines_of(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [] if file_id is None else [orjson.loads(item) for item in client.files.content(file_id).iter_lines()]


def test_the_way_of_a_batch(any_wire: Wire):
    client = any_wire.client()
    batch = create(client, jsonl(*(line(n) for n in range(1, 8))), metadata={"who": "me"})
    assert (batch.status, batch.errors, batch.output_file_id) == ("validating", None, None)
    assert batch.request_counts is not None
    assert batch.request_counts.total == 0
    assert batch.expires_at == batch.created_at + 86400
    any_wire.ingest(batch.id)
    running = client.batches.retrieve(batch.id)
    assert (running.status, running.request_counts.total) == ("in_progress", 7)  # type: ignore[union-attr]
    assert (running.output_file_id, running.error_file_id) == (None, None), "no content before the end"
    any_wire.stack.run(batch.id)
    done = client.batches.retrieve(batch.id)
    assert done.status == "completed"
    assert done.metadata == {"who": "me"}
    counts = done.request_counts
    assert counts is not None
    assert (counts.total, counts.completed, counts.failed) == (7, 7, 0)
    assert done.error_file_id is None
    times = [done.created_at, done.in_progress_at, done.finalizing_at, done.completed_at]
    assert None not in times
    assert times == sorted(times)  # type: ignore[type-var]
    output = lines_of(client, done.output_file_id)
    assert sorted(item["custom_id"] for item in output) == [f"q-{n}" for n in range(1, 8)]
    assert client.files.retrieve(done.output_file_id or "").purpose == "batch_output"
    first = output[0]
    assert (first["error"], first["response"]["status_code"]) == (None, 200)
    completion = openai.types.chat.ChatCompletion.model_validate(first["response"]["body"], strict=True)
    assert completion.choices[0].message.content
    assert completion.model == "scripted"
    usages = [item["response"]["body"]["usage"] for item in output]
    assert done.usage is not None
    assert done.usage.input_tokens == sum(usage["prompt_tokens"] for usage in usages)
    assert done.usage.output_tokens == sum(usage["completion_tokens"] for usage in usages)
    hidden = sum(usage["completion_tokens_details"]["reasoning_tokens"] for usage in usages)
    assert done.usage.output_tokens_details.reasoning_tokens == hidden
    for usage in usages:
        spent = usage["search"]
        assert spent["kept"] + spent["discarded"] + spent["judged"] == usage["completion_tokens"]


def test_the_trace_and_extra_fields_come_when_asked_for_alone(wire: Wire):
    client = wire.client()
    plain, extended = create(client, jsonl(line(1))), create(client, jsonl(line(1)), extra_body=EXTENDED)
    assert not hasattr(plain, "stage_counts")
    assert hasattr(client.batches.retrieve(plain.id, extra_query={"extended": "true"}), "stage_counts")
    wire.run(plain.id, extended.id)
    plain, extended = (client.batches.retrieve(item.id) for item in (plain, extended))
    assert (extended.stage_counts, extended.priority) == ({}, "background")  # type: ignore[attr-defined]
    assert extended.policy["candidates"] == 2  # type: ignore[attr-defined]
    bare = lines_of(client, plain.output_file_id)[0]["response"]["body"]["choices"][0]
    full = lines_of(client, extended.output_file_id)[0]["response"]["body"]["choices"][0]
    assert "search" not in bare
    assert "reasoning_content" not in bare["message"]
    stages = full["search"]["trace"]["stages"]
    assert [stage["stage"] for stage in stages] == ["summary", "caption", "reasoning", "conclusion"]
    assert [len(stage["candidates"]) for stage in stages] == [2, 2, 2, 2]
    assert len(full["message"]["reasoning_content"]) > 20
    assert full["message"]["content"] not in ("", full["message"]["reasoning_content"])


def test_a_line_may_ask_for_its_own_trace_and_policy(wire: Wire):
    client = wire.client()
    batch = create(client, jsonl(line(1, search={"trace": True, "candidates": 3}), line(2)))
    wire.run(batch.id)
    output = {
        item["custom_id"]: item["response"]["body"]["choices"][0]
        for item in lines_of(client, client.batches.retrieve(batch.id).output_file_id)
    }
    assert len(output["q-1"]["search"]["trace"]["stages"][0]["candidates"]) == 3
    assert "search" not in output["q-2"]


BAD = [
    (b"{not json}\n", "invalid_json_line", None),
    (b'{"custom_id": "\xff"}\n', "invalid_json_line", None),
    ({"method": "POST", "url": ENDPOINT, "body": line(1)["body"]}, "missing_required_parameter", "custom_id"),
    ({**line(2), "body": {"model": "scripted"}}, "missing_required_parameter", "body.messages"),
    ({**line(3), "custom_id": "q-1"}, "duplicate_custom_id", "custom_id"),
    (line(4, model="another"), "mismatched_model", "body.model"),
    ({**line(5), "url": "/v1/embeddings"}, "url_mismatch", "url"),
    ({**line(6), "method": "GET"}, "invalid_request", "method"),
    (line(7, stream=True), "invalid_request", "body.stream"),
    (line(8, n=2), "unsupported_parameter", "body.n"),
    (line(9, search={"candidats": 2}), "unknown_field", "body.search.candidats"),
]


def test_every_bad_line_is_told_and_nothing_runs(wire: Wire):
    client = wire.client()
    batch = create(client, jsonl(line(1), *(item for item, _, _ in BAD)))
    wire.ingest(batch.id)
    failed = client.batches.retrieve(batch.id)
    assert failed.status == "failed"
    assert failed.failed_at is not None
    assert failed.errors is not None
    found = [(error.line, error.code, error.param) for error in failed.errors.data or ()]
    assert found == [(place, code, param) for place, (_, code, param) in enumerate(BAD, start=2)]
    assert (failed.output_file_id, failed.error_file_id) == (None, None)
    assert failed.request_counts is not None
    assert (failed.request_counts.total, failed.request_counts.failed) == (0, 0)
    assert wire.stack.calls(batch.id) == []
    with pytest.raises(openai.BadRequestError):
        client.batches.cancel(batch.id)


def test_bad_lines_may_be_skipped(wire: Wire):
    client = wire.client()
    batch = create(client, jsonl(line(1), *(item for item, _, _ in BAD)), extra_body={"on_bad_line": "skip"})
    wire.run(batch.id)
    done = client.batches.retrieve(batch.id)
    assert done.status == "completed"
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (1, len(BAD))
    errors = lines_of(client, done.error_file_id)
    assert len(errors) == len(BAD)
    assert all(item["error"] is None and item["response"]["status_code"] == 400 for item in errors)
    assert errors[0]["response"]["body"]["error"]["code"] == "invalid_json_line"
    names = [item["custom_id"] for item in (*errors, *lines_of(client, done.output_file_id))]
    assert len(set(names)) == len(BAD) + 1


@pytest.mark.parametrize("text", [b"\xef\xbb\xbf" + jsonl(line(1)), jsonl(line(1)).replace(b"\n", b"\r\n") + b"\n\n"])
def test_byte_order_mark_crlf_and_blank_lines_are_no_fault(wire: Wire, text: bytes):
    batch = create(wire.client(), text)
    wire.ingest(batch.id)
    assert wire.client().batches.retrieve(batch.id).status == "in_progress"


def test_a_file_without_a_line_fails(wire: Wire):
    batch = create(wire.client(), b"\n\n")
    wire.ingest(batch.id)
    failed = wire.client().batches.retrieve(batch.id)
    assert failed.errors is not None
    assert [error.code for error in failed.errors.data or ()] == ["empty_file"]


def test_when_all_lines_fail_the_batch_completes_without_an_output_file(wire: Wire):
    client = wire.client()
    batch = create(
        client, jsonl(*(line(n) for n in range(3))), extra_body={"search": {"token_budget": 1, "on_limit": "fail"}}
    )
    wire.run(batch.id)
    done = client.batches.retrieve(batch.id)
    assert (done.status, done.output_file_id) == ("completed", None)
    assert done.request_counts is not None
    assert done.request_counts.failed == 3
    errors = lines_of(client, done.error_file_id)
    assert {item["custom_id"] for item in errors} == {"q-0", "q-1", "q-2"}
    assert all(item["response"]["status_code"] >= 400 and item["error"] is None for item in errors)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"metadata": {"k": "x" * 513}}, "metadata.k"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
        ({"extra_body": {"serach": {}}}, "serach"),
        ({"extra_body": {"search": {"candidates": 0}}}, "search.candidates"),
        ({"extra_body": {"search": {"candidats": 2}}}, "search.candidats"),
        ({"extra_body": {"search": {"strategy": "beam"}}}, "search.strategy"),
        ({"extra_body": {"search": {"trace": 1}}}, "search.trace"),
    ],
)
def test_a_wrong_request_is_refused_by_its_field(wire: Wire, given: dict[str, Any], param: str):
    client = wire.client()
    file = client.files.create(file=jsonl(line(1)), purpose="batch")
    with pytest.raises(openai.APIStatusError) as error:
        client.batches.create(
            **{"input_file_id": file.id, "endpoint": ENDPOINT, "completion_window": "24h", **given}  # type: ignore[arg-type]
        )
    assert error.value.status_code in (400, 422)
    assert error.value.param == param  # type: ignore[attr-defined]
    assert "policy." not in error.value.message
    assert client.batches.list().data == []


def test_another_window_is_taken_and_an_unknown_file_refused(wire: Wire):
    client = wire.client()
    file = client.files.create(file=jsonl(line(1)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="90m")  # type: ignore[arg-type]
    assert batch.expires_at == batch.created_at + 5400
    assert batch.completion_window == "90m"
    with pytest.raises(openai.NotFoundError) as error:
        client.batches.create(input_file_id="file-none", endpoint=ENDPOINT, completion_window="24h")
    assert error.value.param == "input_file_id"


def test_an_idempotency_key_gives_one_batch(any_wire: Wire):
    client = any_wire.client()
    file = client.files.create(file=jsonl(line(1)), purpose="batch")
    given: Any = {"input_file_id": file.id, "endpoint": ENDPOINT, "completion_window": "24h"}
    headers = {"Idempotency-Key": "k-1"}
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(client.batches.create(**given, extra_headers=headers).id))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    with pytest.raises(openai.BadRequestError) as error:
        client.batches.create(**given, metadata={"a": "b"}, extra_headers=headers)
    assert error.value.code == "idempotency_key_reused"
    assert client.batches.create(**given).id not in found


class DropsAnswers(httpx.HTTPTransport):
    """A network that loses the first answer of every POST after the server has acted on it."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[str] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if request.method == "POST" and request.url.path not in self.lost:
            self.lost.add(request.url.path)
            response.read()
            raise httpx.ReadError("connection reset", request=request)
        return response


def test_a_lost_answer_makes_neither_a_second_file_nor_a_second_batch(wire: Wire):
    with openai.OpenAI(
        base_url=f"{wire.url}/v1", api_key="x", http_client=httpx.Client(transport=DropsAnswers())
    ) as client:
        batch = create(client, jsonl(line(1)), metadata={"a": "b"})
        assert [item.id for item in client.batches.list()] == [batch.id]
        assert len(client.files.list().data) == 1


def test_paging_by_the_last_id(any_wire: Wire):
    client = any_wire.client()
    file = client.files.create(file=jsonl(line(1)), purpose="batch")
    made = [
        client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h").id for _ in range(5)
    ]
    for limit in (1, 2, 20, 100):
        assert [item.id for item in client.batches.list(limit=limit)] == made[::-1]
    seen = []
    for item in client.batches.list(limit=2):
        seen.append(item.id)
        if len(seen) == 2:  # what comes in while paging is not met twice, nor does it push others out
            client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
    assert seen == made[::-1]
    page = httpx.get(f"{any_wire.url}/v1/batches?limit=2", timeout=30).json()
    assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][1]["id"])
    oldest = httpx.get(
        f"{any_wire.url}/v1/batches?after={made[0]}", timeout=30
    ).json()  # the page too many of old clients
    assert oldest == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_cancel_in_every_state(wire: Wire):
    client, stack = wire.client(), wire.stack
    waiting = create(client, jsonl(line(1)))
    assert client.batches.cancel(waiting.id).status == "cancelling"
    assert client.batches.cancel(waiting.id).status == "cancelling"
    wire.ingest(waiting.id)
    stack.run(waiting.id)
    ended = client.batches.retrieve(waiting.id)
    assert (ended.status, ended.output_file_id) == ("cancelled", None)
    assert ended.cancelled_at is not None
    assert client.batches.cancel(waiting.id).status == "cancelled"
    running = create(client, jsonl(line(1)))
    wire.ingest(running.id)
    with stack.worker() as pipeline:
        stack.send(dispatch(wire.db, stack.settings, stack.now).outgoing)
        assert stack.job(running.id).running == 1
        assert client.batches.cancel(running.id).status == "cancelling"
        while stack.job(running.id).status != "finalizing":
            stack.step(pipeline)
    assert client.batches.cancel(running.id).status == "cancelling"
    stack.run(running.id)
    ended = client.batches.retrieve(running.id)
    assert (ended.status, len(lines_of(client, ended.output_file_id))) == ("cancelled", 1)
    done = create(client, jsonl(line(1)))
    wire.ingest(done.id)
    with stack.worker() as pipeline:
        while stack.job(done.id).status != "finalizing":
            stack.step(pipeline)
    for status in ("finalizing", "completed"):
        assert client.batches.retrieve(done.id).status == status
        with pytest.raises(
            openai.BadRequestError, match=f"is {status}; only one that is validating or in_progress"
        ) as error:
            client.batches.cancel(done.id)
        assert error.value.code == "batch_not_cancellable"
        stack.run(done.id)


def test_what_was_answered_before_a_cancel_is_kept(wire: Wire):
    client, stack = wire.client(), wire.stack
    batch = create(client, jsonl(*(line(n) for n in range(1, 40))))
    wire.ingest(batch.id)
    with stack.worker() as pipeline:
        while stack.job(batch.id).done < 3:
            stack.step(pipeline)
    client.batches.cancel(batch.id)
    stack.run(batch.id)
    ended = client.batches.retrieve(batch.id)
    assert ended.status == "cancelled"
    output, rest = lines_of(client, ended.output_file_id), lines_of(client, ended.error_file_id)
    assert len(output) >= 3
    assert len(output) + len(rest) == 39
    assert {item["error"]["code"] for item in rest} <= {"batch_cancelled"}


def test_an_expired_batch_keeps_what_is_answered(wire: Wire):
    client, stack = wire.client(), wire.stack
    batch = create(client, jsonl(*(line(n) for n in range(1, 40))))
    wire.ingest(batch.id)
    with stack.worker() as pipeline:
        while stack.job(batch.id).done < 3:
            stack.step(pipeline)
    stack.now += 90_000
    reconcile(wire.db, stack.settings, stack.wire.depth, stack.now)
    stack.run(batch.id)
    ended = client.batches.retrieve(batch.id)
    assert ended.status == "expired"
    assert ended.expired_at is not None
    rest = lines_of(client, ended.error_file_id)
    assert len(rest) + len(lines_of(client, ended.output_file_id)) == 39
    assert rest[0]["response"] is None
    assert {item["error"]["code"] for item in rest} == {"batch_expired"}


def test_a_cancel_that_races_the_end_agrees_with_it(any_wire: Wire):
    """Every interleaving of cancel and finalize at the row: one of the two ends holds, files and all."""
    client, stack = any_wire.client(), any_wire.stack
    ended = set()
    for turn in range(12):
        batch = create(client, jsonl(line(1)))
        any_wire.ingest(batch.id)
        with stack.worker() as pipeline:
            while stack.job(batch.id).running + stack.job(batch.id).waiting:
                stack.step(pipeline)
        thread = threading.Thread(target=lambda b=batch: _cancel(client, b.id))
        if turn % 3:
            thread.start()
        with any_wire.db.write() as conn:
            transitions.move_job(conn, batch.id, "finalizing", stack.now, "all queries ended")
        if not turn % 3:
            thread.start()
        thread.join()
        stack.run(batch.id)
        last = client.batches.retrieve(batch.id)
        ended.add(last.status)
        assert last.status in ("completed", "cancelled")
        assert len(lines_of(client, last.output_file_id)) == 1
        assert (last.cancelled_at is None) == (last.status == "completed")
    assert ended


def _cancel(client: openai.OpenAI, batch_id: str) -> None:
    with contextlib.suppress(openai.BadRequestError):
        client.batches.cancel(batch_id)


def test_a_retry_replaces_the_files(any_wire: Wire):
    client, stack = any_wire.client(), any_wire.stack
    batch = create(client, jsonl(line(1), line(2)))
    any_wire.ingest(batch.id)
    client.batches.cancel(batch.id)
    stack.run(batch.id)
    before = client.batches.retrieve(batch.id)
    assert before.error_file_id is not None
    actions.retry_job(any_wire.db, batch.id, stack.now, "again")
    assert client.batches.retrieve(batch.id).status == "in_progress"
    stack.run(batch.id)
    after = client.batches.retrieve(batch.id)
    assert (after.status, after.error_file_id) == ("completed", None)
    assert len(lines_of(client, after.output_file_id)) == 2
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(before.error_file_id)


def test_another_projects_batch_is_not_there(wire: Wire):
    mine, other = wire.client(wire.key("one")), wire.client(wire.key("two"))
    batch = create(mine, jsonl(line(1)))
    for call in (other.batches.retrieve, other.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            call(batch.id)
    assert other.batches.list().data == []


def test_a_job_on_its_way_to_cancelled_never_says_finalizing(wire: Wire):
    batch = create(wire.client(), jsonl(line(1)))
    with wire.db.write() as conn:
        transitions.move_job(conn, batch.id, "cancelling", 5.0, "x")
        transitions.move_job(conn, batch.id, "finalizing", 6.0, "x")
        row = jobs.get(conn, batch.id)
    assert batch_object(row)["status"] == "cancelling"
    assert batch_object(row)["finalizing_at"] is None
