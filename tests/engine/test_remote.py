"""The remote engine against servers of different manners."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from reasoning.errors import BadInput, ModelError, Transient
from reasoning.records import Finish
from tests.engine.reference import WARM, ask, choose, generate
from tests.engine.server import Manners, Server
from tests.waiting import wait_until
from workers.engine.protocol import Sampling
from workers.engine.registry import open_engine
from workers.engine.remote import RemoteEngine
from workers.engine.remote_wire import seconds_until

ROOMY = Sampling(temperature=0.8, top_p=0.9, top_k=40, max_tokens=200)
Connect = Callable[..., tuple[RemoteEngine, Manners]]


@pytest.fixture
def connect() -> Iterator[Connect]:
    opened: list[RemoteEngine | Server] = []

    def one(manners: Manners, **options: object) -> tuple[RemoteEngine, Manners]:
        server = Server(manners)
        settings = {"backoff_s": 0.01, "context": 250} | options
        engine = open_engine(f"openai:{server.url}#m", settings)
        assert isinstance(engine, RemoteEngine)
        opened.extend((server, engine))
        return engine, manners

    yield one
    for thing in reversed(opened):
        thing.close()


def test_candidates_come_in_one_request(connect: Connect, pictures: dict[str, bytes]):
    engine, manners = connect(Manners())
    request = generate(
        ask("What?", ["picture0"], prefix="<SUMMARY>x</SUMMARY>"),
        pictures,
        seeds=(1, 2, 3, 4),
        stop="</CAPTION>",
        sampling=ROOMY,
    )
    result = engine.generate(request).result(timeout=10)
    assert [candidate.finish for candidate in result.candidates] == [Finish.STOP] * 4
    assert all(candidate.text.endswith("</CAPTION>") for candidate in result.candidates)
    assert sum(candidate.tokens for candidate in result.candidates) == result.usage.generated_tokens > 0
    (body,) = manners.seen
    assert body["n"] == 4
    assert body["top_k"] == 40
    assert body["continue_final_message"] is True
    assert body["messages"][-1] == {"role": "assistant", "content": "<SUMMARY>x</SUMMARY>"}
    assert body["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")


def test_a_server_that_ignores_n_is_asked_one_by_one(connect: Connect):
    engine, manners = connect(Manners(several=False))
    for _ in range(2):
        result = engine.generate(generate(ask("What?"), {}, seeds=(1, 2, 3), sampling=ROOMY)).result(timeout=10)
        assert len(result.candidates) == 3
    assert [body.get("n", 1) for body in manners.seen] == [3, 1, 1, 1, 1, 1]
    assert [body["seed"] for body in manners.seen] == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("words", ["n > 1 is not supported", "`n` must be 1", "unknown field 'n'"])
def test_a_server_that_refuses_n_is_asked_one_by_one(connect: Connect, words: str):
    engine, manners = connect(Manners(refuses_n=words))
    for _ in range(2):
        result = engine.generate(generate(ask("What?"), {}, seeds=(1, 2, 3), sampling=ROOMY)).result(timeout=10)
        assert len(result.candidates) == 3
    # Refused twice: fields beyond OpenAI's own are the first suspect.
    assert [body.get("n", 1) for body in manners.seen] == [3, 3, *[1] * 6]


@pytest.mark.parametrize("body", ['{"id": ', '"<html>"', "null", '{"choices": []}', '{"choices": [{"index": 0}]}'])
def test_an_answer_that_cannot_be_read_fails_its_call_and_may_be_tried_again(connect: Connect, body: str):
    engine, _ = connect(Manners(broken=[body]))
    error = engine.generate(generate(ask("What?"), {}, sampling=ROOMY)).exception(timeout=10)
    assert isinstance(error, ModelError)
    assert (error.code, error.retryable) == ("crash", True)
    assert engine.generate(generate(ask("What?"), {}, sampling=ROOMY)).result(timeout=10).candidates


def test_the_time_to_wait_comes_as_seconds_or_as_a_date():
    assert seconds_until("1.5") == 1.5
    assert seconds_until("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert 3590 < (seconds_until(format_datetime(datetime.now(UTC) + timedelta(hours=1))) or 0) <= 3600
    assert seconds_until("") is None
    assert seconds_until("soon") is None
    assert seconds_until("²") is None


def test_a_server_of_openai_words_alone_gets_no_others(connect: Connect):
    engine, manners = connect(Manners(extras=False, keeps_stop=False))
    for _ in range(2):
        result = engine.generate(generate(ask("What?"), {}, sampling=ROOMY)).result(timeout=10)
        assert result.candidates[0].text.endswith("</SUMMARY>")
    assert ["top_k" in body for body in manners.seen] == [True, False, False]


def test_all_who_ask_at_once_in_words_too_many_are_answered(connect: Connect):
    """The first burst goes out before anybody knows what the server understands."""
    engine, _ = connect(Manners(extras=False), start=8)
    futures = [engine.generate(generate(ask(f"{k}?"), {}, sampling=ROOMY)) for k in range(8)]
    assert all(future.result(timeout=10).candidates for future in futures)


def test_one_refused_request_does_not_make_the_others_poorer(connect: Connect):
    engine, manners = connect(Manners(poison="huge"))
    error = engine.generate(generate(ask("huge"), {}, sampling=ROOMY)).exception(timeout=10)
    assert isinstance(error, ModelError)
    assert error.code == "refused"
    assert engine.generate(generate(ask("What?"), {}, sampling=ROOMY)).result(timeout=10).candidates
    assert "top_k" in manners.seen[-1]


def test_a_server_that_fails_on_one_request_fails_it_at_last(connect: Connect):
    """As an error of the model: what is transient is tried without end."""
    engine, manners = connect(Manners(fails_on="curse"), retries=3, max_backoff_s=0.02)
    error = engine.generate(generate(ask("curse"), {}, sampling=ROOMY)).exception(timeout=10)
    assert isinstance(error, ModelError)
    assert (error.code, error.retryable) == ("crash", True)
    assert engine.generate(generate(ask("What?"), {}, sampling=ROOMY)).result(timeout=10).candidates
    assert "stop" in manners.seen[-1]


@pytest.mark.parametrize("status", [524, 520, 503])
def test_a_gateway_that_gives_up_is_asked_again(connect: Connect, status: int):
    engine, _ = connect(Manners(fails=[status]))
    assert engine.generate(generate(ask("What?"), {}, sampling=ROOMY)).result(timeout=10).candidates


@pytest.mark.parametrize("reason", ["content_filter", "abort"])
def test_a_text_that_was_cut_off_is_not_taken_for_whole(connect: Connect, reason: str):
    engine, _ = connect(Manners(finish=reason))
    (candidate,) = engine.generate(generate(ask("What?"), {}, sampling=ROOMY)).result(timeout=10).candidates
    assert candidate.finish is Finish.EARLY_END
    assert not candidate.text.endswith("</SUMMARY>")


def test_a_slow_image_holds_nobody_else_back(connect: Connect, pictures: dict[str, bytes]):
    engine, _ = connect(Manners())
    asked, came = threading.Event(), threading.Event()

    def slow(_image: str) -> bytes:
        asked.set()
        came.wait(20)
        return pictures["picture0"]

    slow_one = engine.generate(replace(generate(ask("?", ["far"]), {}, sampling=ROOMY), load_image=slow))
    wait_until(asked.is_set)
    try:
        assert engine.generate(generate(ask("What?"), {}, sampling=ROOMY)).result(timeout=5).candidates
    finally:
        came.set()
    assert slow_one.result(timeout=10).candidates


def test_who_waits_for_a_slot_when_the_engine_closes_is_told(connect: Connect):
    engine, manners = connect(Manners(delay_s=30), slots=1)
    first = engine.generate(generate(ask("1?"), {}, sampling=ROOMY))
    late: list[Future[Any]] = []
    thread = threading.Thread(target=lambda: late.append(engine.generate(generate(ask("2?"), {}, sampling=ROOMY))))
    thread.start()
    wait_until(lambda: manners.at_once == 1)
    engine.close()
    thread.join(10)
    assert isinstance(first.exception(timeout=5), Transient)
    assert isinstance(late[0].exception(timeout=5), Transient)


def test_labels_come_from_logprobs(connect: Connect):
    engine, _ = connect(Manners())
    prompt = ask("\nResponse 1: a\nResponse 2: b\nRemember: ")
    shares = engine.choose(choose(prompt, {})).result(timeout=10).probabilities
    local = open_engine("scripted").choose(choose(prompt, {})).result().probabilities
    assert shares == pytest.approx(local)


def test_a_server_without_logprobs_judges_in_words(connect: Connect):
    engine, manners = connect(Manners(logprobs=False))
    assert engine.info.has_labels
    for _ in range(2):
        error = engine.choose(choose(ask("1 or 2?"), {})).exception(timeout=10)
        assert isinstance(error, ModelError)
        assert error.code == "no_labels"
    assert not engine.info.has_labels
    assert len(manners.seen) == 1


def test_a_busy_server_is_asked_again_and_less_at_once(connect: Connect):
    engine, manners = connect(Manners(busy=12), retries=8)
    futures = [engine.generate(generate(ask(f"{k}?"), {}, sampling=ROOMY)) for k in range(16)]
    assert all(future.result(timeout=20).candidates for future in futures)
    assert engine.counters().values["retries"] == 12
    assert manners.most_at_once < 8


def test_more_go_at_once_while_the_server_answers(connect: Connect):
    engine, manners = connect(Manners(delay_s=0.05), start=2, slots=32)
    futures = [engine.generate(generate(ask(f"{k}?"), {}, sampling=ROOMY)) for k in range(120)]
    assert all(future.result(timeout=20).candidates for future in futures)
    assert 4 < manners.most_at_once <= 32


def test_requests_of_the_earliest_query_go_first(connect: Connect):
    engine, manners = connect(Manners(delay_s=0.05), start=1, slots=32)
    futures = [engine.generate(generate(ask(f"{k}"), {}, group=str(k % 2), sampling=ROOMY)) for k in range(6)]
    for future in futures:
        future.result(timeout=10)
    order = [int(body["messages"][0]["content"]) % 2 for body in manners.seen]
    assert order[:4] in ([0, 1, 0, 0], [0, 0, 0, 1])


def test_a_server_that_is_away_is_transient(connect: Connect):
    engine = open_engine("openai:http://127.0.0.1:9/v1#m", {"retries": 1, "backoff_s": 0.01})
    assert isinstance(engine.generate(generate(ask("?"), {})).exception(timeout=10), Transient)
    engine.close()


def test_a_refusal_is_told(connect: Connect):
    engine, _ = connect(Manners())
    error = engine.generate(generate(ask("word " * 300), {}, sampling=WARM)).exception(timeout=10)
    assert isinstance(error, ModelError)
    assert error.code == "context_overflow"


@pytest.mark.parametrize("name", ["openai:", "openai:http://127.0.0.1:1/v1", "openai:#m"])
def test_the_name_needs_address_and_model(name: str):
    with pytest.raises(BadInput, match="BASE_URL#MODEL"):
        open_engine(name)
