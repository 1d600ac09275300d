from __future__ import annotations

from typing import Any

import pytest

from orchestrator.intake.chat import ChatRules
from orchestrator.intake.records import AcceptedLine
from reasoning.records import Turn
from tests.intake.lines_of import chat, codes, judged, native, text


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def part(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def accepted(line: dict[str, Any]) -> AcceptedLine:
    (verdict,) = judged(text(line), line_format="openai").values()
    assert isinstance(verdict, AcceptedLine), codes(verdict)
    return verdict


def test_a_conversation_becomes_one_question():
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [image("a.png"), part("What is it?")]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": [part("And"), image("https://x.example/b.png"), part("this?")]},
    ]
    line = accepted(chat(messages=messages))
    assert line.question == "And\nthis?"
    assert [ref.value for ref in line.images] == ["a.png", "https://x.example/b.png"]
    assert line.image_fields == (
        "body.messages[1].content[0].image_url.url",
        "body.messages[3].content[1].image_url.url",
    )
    assert line.context == (Turn("system", "Be brief."), Turn("user", "What is it?"), Turn("assistant", "A cat."))


def test_parameters_become_policy_and_search_wins():
    line = accepted(
        chat(
            max_tokens=100,
            max_completion_tokens=200,
            temperature=1,
            top_p=None,
            seed=-1,
            search={"temperature": 0.5, "candidates": 8, "trace": True},
        )
    )
    assert line.policy == {"max_tokens": 200, "temperature": 0.5, "seed": 2**63 - 1, "candidates": 8}
    assert line.extra == {"wire": {"model": "m", "trace": True}}


def test_parameters_that_change_nothing_are_accepted():
    accepted(chat(n=1, stream=False, stop=[], presence_penalty=0.0, user="u", store=True, logit_bias={}, tools=[]))
    assert accepted(chat(metadata={"a": "b"})).extra["metadata"] == {"a": "b"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (chat(stream=True), [("body.stream", "invalid_request")]),
        (chat(n=2), [("body.n", "unsupported_parameter")]),
        (chat(tools=[{}]), [("body.tools", "unsupported_parameter")]),
        (chat(response_format={"type": "json_object"}), [("body.response_format", "unsupported_parameter")]),
        (chat(temprature=1), [("body.temprature", "unknown_field")]),
        (chat(model=...), [("body.model", "missing_required_parameter")]),
        (chat(model=3), [("body.model", "invalid_type")]),
        (chat(messages=...), [("body.messages", "missing_required_parameter")]),
        (chat(messages=[]), [("body.messages", "missing_required_parameter")]),
        (chat(messages={}), [("body.messages", "invalid_type")]),
        (chat(messages=["hi"]), [("body.messages[0]", "invalid_type")]),
        (chat(messages=[{"role": "tool", "content": "a"}]), [("body.messages[0].role", "invalid_value")]),
        (chat(messages=[{"role": "user", "content": 3}]), [("body.messages[0].content", "invalid_type")]),
        (chat(messages=[{"role": "user", "content": [3]}]), [("body.messages[0].content[0]", "invalid_value")]),
        (chat(messages=[{"role": "assistant", "content": "a"}]), [("body.messages[0]", "invalid_value")]),
        (chat(messages=[{"role": "user", "content": [image("a.png")]}]), [("body.messages[0]", "invalid_value")]),
        (
            chat(messages=[{"role": "user", "content": [part("a"), image(None)]}]),
            [("body.messages[0].content[1].image_url.url", "invalid_image_reference")],
        ),
        (chat(max_tokens=0), [("body.max_tokens", "invalid_policy")]),
        (chat(search={"candidats": 1}), [("body.search.candidats", "unknown_field")]),
        (chat(search={"trace": 1}), [("body.search.trace", "invalid_type")]),
        (chat(search=3), [("body.search", "invalid_type")]),
        (chat(url="/v1/embeddings"), [("url", "url_mismatch")]),
        ({**chat(), "method": "GET"}, [("method", "invalid_request")]),
        ({**chat(), "body": 3}, [("body", "invalid_type")]),
        ({**chat(), "boddy": 3}, [("boddy", "unknown_field")]),
        ({"custom_id": "a"}, [(name, "missing_required_parameter") for name in ("method", "url", "body")]),
    ],
)
def test_every_bad_line_is_explained(line: Any, expected: list[tuple[str | None, str]]):
    (verdict,) = judged(text(line), line_format="openai").values()
    assert codes(verdict) == expected


def test_one_model_for_each_file():
    lines = text(chat("a", model="x", stream=True), chat("b", model="y"), chat("c", model="y"), chat("d", model="z"))
    found = judged(lines, line_format="openai", chat=ChatRules())
    assert codes(found[4]) == [("body.model", "mismatched_model")]
    assert codes(found[2]) == codes(found[3]) == []
    found = judged(lines, line_format="openai", chat=ChatRules(model="z"))
    assert [codes(found[number]) == [] for number in (2, 3, 4)] == [False, False, True]
    found = judged(lines, line_format="openai", chat=ChatRules(one_model=False))
    assert [codes(found[number]) for number in (2, 3, 4)] == [[], [], []]


def test_the_endpoint_is_a_rule():
    rules = ChatRules(endpoint="/v1/responses")
    (verdict,) = judged(text(chat(url="/v1/responses")), line_format="openai", chat=rules).values()
    assert codes(verdict) == []


def test_both_forms_give_the_same_record():
    reference = "blob:" + "a" * 64
    messages = [{"role": "user", "content": [image(reference), part("How many?")]}]
    (one,) = judged(text(chat(messages=messages, temperature=0.5))).values()
    (other,) = judged(text(native(policy={"temperature": 0.5}))).values()
    assert isinstance(one, AcceptedLine)
    assert isinstance(other, AcceptedLine)
    assert one.images == other.images
    assert {**one.body([]), "wire": None} == {**other.body([]), "wire": None}
