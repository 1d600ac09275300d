"""One question now, on a whole stack (issue: interactive priority, streaming, a client that goes away)."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from tests.openai.wire import make_client
from tests.waiting import wait_until

ASK: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "How many?"}]}


@pytest.fixture
def client(live: str) -> Iterator[openai.OpenAI]:
    with make_client(live, max_retries=2) as made:
        yield made


def picture() -> str:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), "teal").save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def jobs_of(url: str) -> list[dict[str, Any]]:
    return list(httpx.get(f"{url}/api/jobs", params={"limit": 5}, timeout=30).json()["data"])


def test_a_question_is_answered_now(live: str, client: openai.OpenAI):
    content: Any = [
        {"type": "text", "text": "What colour?"},
        {"type": "image_url", "image_url": {"url": picture(), "detail": "low"}},
    ]
    answer = client.chat.completions.create(
        model="scripted",
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}],
        extra_body={"search": {"trace": True, "candidates": 2}},
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "stop"
    assert choice.message.content
    assert choice.message.reasoning_content  # type: ignore[attr-defined]
    assert len(choice.search["trace"]["stages"]) == 4  # type: ignore[attr-defined]
    usage = answer.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    spent = usage.search  # type: ignore[attr-defined]
    assert spent["kept"] + spent["discarded"] + spent["judged"] == usage.completion_tokens
    assert jobs_of(live)[0]["priority"] == "interactive"


def test_a_stream_tells_the_stages_as_comments_and_ends_like_a_stream(live: str, client: openai.OpenAI):
    chunks = list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    with httpx.stream("POST", f"{live}/v1/chat/completions", json={**ASK, "stream": True}) as response:
        lines = list(response.iter_lines())
    assert [line for line in lines if line.startswith(": running")]
    assert lines[-2] == "data: [DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_cancels(live: str, stream: bool):
    slow = {**ASK, "stream": stream, "messages": [{"role": "user", "content": "How many? #slow"}]}
    before = {job["id"] for job in jobs_of(live)}
    with httpx.Client(timeout=0.3) as http:
        try:
            with http.stream("POST", f"{live}/v1/chat/completions", json=slow) as response:
                for _ in response.iter_raw():
                    break
        except httpx.ReadTimeout:
            pass

    def ended() -> dict[str, Any] | None:
        new = [job for job in jobs_of(live) if job["id"] not in before]
        return new[0] if new and new[0]["status"] in ("cancelled", "completed") else None

    job = wait_until(ended, 25.0, what="the question's job ended")
    assert job["status"] == "cancelled"


def test_wrong_questions_name_the_field(client: openai.OpenAI):
    for given, param, code in [
        ({"messages": []}, "messages", "missing_required_parameter"),
        ({"n": 3}, "n", "unsupported_parameter"),
        ({"temperature": 9.0}, "temperature", "invalid_policy"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "invalid_policy"),
        ({"extra_body": {"search": {"candidates": 0}}}, "search.candidates", "invalid_policy"),
        ({"extra_body": {"search": {"candidats": 3}}}, "search.candidats", "unknown_field"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}},
                                                       {"type": "text", "text": "?"}]}]},
            "messages[0].content[0].image_url.url",
            "image_unreadable",
        ),
    ]:  # fmt: skip
        with pytest.raises(openai.BadRequestError) as error:
            client.chat.completions.create(**{**ASK, **given})
        assert (error.value.param, error.value.code) == (param, code)
        assert isinstance(error.value.body, dict)
        details = error.value.body["details"]
        assert details[0]["field"] == param
        assert not any(word in item["message"] for item in details for word in ("body.", "policy."))


def test_a_question_that_fails_is_an_error_that_is_not_repeated(live: str, client: openai.OpenAI):
    before = len(jobs_of(live))
    with pytest.raises(openai.InternalServerError) as error:
        client.chat.completions.create(**ASK, extra_body={"search": {"token_budget": 1, "on_limit": "fail"}})
    assert error.value.code == "token_budget"
    assert error.value.response.headers["x-should-retry"] == "false"
    streamed = client.chat.completions.create(
        **ASK, stream=True, extra_body={"search": {"token_budget": 1, "on_limit": "fail"}}
    )
    with pytest.raises(openai.APIError, match="token"):
        list(streamed)
    assert len(jobs_of(live)) <= before + 2


def test_a_question_out_of_time_is_not_repeated_either(client: openai.OpenAI):
    """A batch may go on where its time was over; a question begins anew and would end where it ended."""
    with pytest.raises(openai.InternalServerError) as error:
        client.chat.completions.create(**ASK, extra_body={"search": {"deadline_s": 0.001, "on_limit": "fail"}})
    assert (error.value.status_code, error.value.code) == (504, "deadline")
    assert error.value.response.headers["x-should-retry"] == "false"


def test_the_models_are_listed(client: openai.OpenAI):
    assert "scripted" in [model.id for model in client.models.list()]
    assert client.models.retrieve("scripted").owned_by == "stagebeam"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("gpt-none")
    assert error.value.code == "model_not_found"


def test_the_quick_start_of_the_hosted_api_runs(client: openai.OpenAI):
    """The hosted guide's own steps; only address and key are ours. The model name is one we do not have."""
    requests = b"".join(
        b'{"custom_id": "request-%d", "method": "POST", "url": "/v1/chat/completions", '
        b'"body": {"model": "gpt-4o-mini", '
        b'"messages": [{"role": "system", "content": "You are a helpful assistant."}, '
        b'{"role": "user", "content": "Hello world!"}], "max_tokens": 1000}}\n' % number
        for number in (1, 2)
    )
    file = client.files.create(file=("batchinput.jsonl", requests), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"description": "nightly eval job"},
    )
    done = wait_until(
        lambda: found if (found := client.batches.retrieve(batch.id)).status == "completed" else None, 20.0
    )
    assert client.files.content(done.output_file_id or "").text.count("request-") == 2
