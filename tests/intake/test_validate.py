from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.intake.records import AcceptedLine, LineError, RefusedLine
from reasoning.errors import BadInput
from tests.intake.lines_of import chat, codes, judged, native, text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["custom_id", "question", "images", "choices", "answer", "policy", "context", "metadata", "error", "image", "body"]
)
BROKEN = st.dictionaries(NAMES, JSON, max_size=6).map(orjson.dumps) | st.binary(max_size=40) | JSON.map(orjson.dumps)


@given(st.binary(max_size=300), st.sampled_from(["native", "openai"]))
def test_no_bytes_crash_it_and_every_error_has_a_line(data: bytes, line_format: str):
    verdicts: Mapping[int, AcceptedLine | RefusedLine]
    try:
        verdicts = judged(data, line_format=line_format, max_line_bytes=100)
    except BadInput as error:
        verdicts = {error.line or 0: RefusedLine((LineError(error.line or 0, None, error.code, error.message),))}
    for number, verdict in verdicts.items():
        assert isinstance(verdict, AcceptedLine) or all(e.line == number > 0 and e.message for e in verdict.errors)


@given(st.lists(BROKEN, max_size=6), st.data())
def test_bad_lines_cost_the_others_nothing(bad: list[bytes], data: st.DataObject):
    good = [native(f"good-{number}") for number in range(4)]
    lines: list[Any] = data.draw(st.permutations([*good, *[line.replace(b"\n", b" ") for line in bad]]))
    accepted = {v.custom_id for v in judged(text(*lines)).values() if isinstance(v, AcceptedLine)}
    assert accepted >= {line["custom_id"] for line in good}


@given(
    question=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip),
    choices=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=5),
    answer=st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.integers(0, 99),
    metadata=st.none()
    | st.dictionaries(st.text(st.characters(codec="ascii", exclude_characters="\0")), st.integers(0, 9)),
    seed=st.integers(0, 2**63 - 1),
)
def test_what_is_accepted_comes_back(question: str, choices: list[str], answer: Any, metadata: Any, seed: int):
    line = native(question=question, choices=choices, answer=answer, metadata=metadata, policy={"seed": seed})
    (verdict,) = judged(json.dumps(line).encode()).values()
    assert isinstance(verdict, AcceptedLine)
    body = orjson.loads(orjson.dumps(verdict.body(["a" * 64])))
    assert body["question"] == question
    assert body["choices"] == choices
    assert body["policy"] == {"seed": seed}
    assert body["images"] == ["a" * 64]
    assert (body.get("answer"), body.get("metadata")) == (answer, metadata)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{", [(None, "invalid_json_line")]),
        (b"[]", [(None, "invalid_json_line")]),
        (b'{"custom_id": "\xe4"}', [(None, "invalid_utf8")]),
        ("{}".encode("utf-16"), [(None, "invalid_utf8")]),
        (b"[" * 5000, [(None, "invalid_json_line")]),
        (native(custom_id=...), [("custom_id", "missing_required_parameter")]),
        (native(custom_id=7), [("custom_id", "invalid_type")]),
        (native(custom_id=""), [("custom_id", "invalid_value")]),
        (native(custom_id="x" * 513), [("custom_id", "invalid_value")]),
        (native(custom_id="a\x1b[31m"), [("custom_id", "invalid_value")]),
        (native(custom_id="(line 9)"), [("custom_id", "invalid_value")]),
        (native(question=...), [("question", "missing_required_parameter")]),
        (native(question="  "), [("question", "invalid_value")]),
        (native(question=["a"]), [("question", "invalid_type")]),
        (native(question="a\0b"), [(None, "invalid_value")]),
        (native(images=...), [("images", "missing_required_parameter")]),
        (native(images=[]), [("images", "missing_required_parameter")]),
        (native(images={}), [("images", "invalid_type")]),
        (native(images=["a.png"] * 101), [("images", "invalid_value")]),
        (native(images=["a.png", 7]), [("images[1]", "invalid_image_reference")]),
        (native(images=["file:///etc/passwd"]), [("images[0]", "invalid_image_reference")]),
        (native(images=["blob:12"]), [("images[0]", "invalid_image_reference")]),
        (native(images=[{"error": "x"}]), [("images[0]", "invalid_image_reference")]),
        (native(images=["a\0b"]), [(None, "invalid_value"), ("images[0]", "invalid_image_reference")]),
        (native(image="a.png"), [("image", "unknown_field")]),
        (native(choices="AB"), [("choices", "invalid_type")]),
        (native(choices=["a"] * 27), [("choices", "invalid_value")]),
        (native(answer={}), [("answer", "invalid_type")]),
        (native(context=[{"role": "robot", "text": "a"}]), [("context[0]", "invalid_value")]),
        (native(context=[{"role": "user", "text": "a", "txt": 1}]), [("context[0].txt", "unknown_field")]),
        (native(metadata=[1]), [("metadata", "invalid_type")]),
        (native(policy=[1]), [("policy", "invalid_type")]),
        (native(policy={"candidats": 4}), [("policy.candidats", "unknown_field")]),
        (native(policy={"candidates": 0}), [("policy.candidates", "invalid_policy")]),
        (native(policy={"candidates": True}), [("policy.candidates", "invalid_type")]),
        (native(policy={"strategy": "stage_bean"}), [("policy.strategy", "unknown_strategy")]),
        (native(policy={"x" * 10**6: 1}), [("policy", "unknown_field")]),
        ({"error": {"code": "line_too_long", "message": "too long"}}, [(None, "line_too_long")]),
        ({"error": 3}, [("error", "invalid_value")]),
    ],
)
def test_every_bad_line_is_explained(line: Any, expected: list[tuple[str | None, str]]):
    (verdict,) = judged(text(line)).values()
    assert codes(verdict) == expected
    assert isinstance(verdict, RefusedLine)
    assert all(len(error.message) <= 400 for error in verdict.errors)


def test_all_errors_of_a_line_are_told_at_once():
    line = native(images=[1, "blob:x"], policy={"top_p": 5, "sed": 1}, choises=["a"], question=None)
    (verdict,) = judged(text(line)).values()
    assert {field for field, _ in codes(verdict)} == {
        "question",
        "images[0]",
        "images[1]",
        "policy.top_p",
        "policy.sed",
        "choises",
    }


def test_the_nearest_name_is_given():
    (verdict,) = judged(text(native(qustion="a"))).values()
    assert isinstance(verdict, RefusedLine)
    assert 'Did you mean "question"?' in verdict.errors[0].message


def test_a_million_unknown_names_cost_little():
    line = orjson.dumps({**native(), **{f"name{number}": 1 for number in range(200_000)}})
    (verdict,) = judged(line).values()
    assert len(codes(verdict)) == 20


def test_deep_metadata_is_refused_before_it_cannot_be_written():
    for depth in range(240, 300):
        (verdict,) = judged(b'{"metadata": %s1%s,' % (b'{"a":' * depth, b"}" * depth) + text(native())[1:]).values()
        if isinstance(verdict, AcceptedLine):
            orjson.dumps(verdict.body(["a" * 64]))
        else:
            assert codes(verdict) == [("metadata", "invalid_value")]


def test_a_single_image_may_stand_without_a_list():
    (verdict,) = judged(text(native(images="a.png"))).values()
    assert isinstance(verdict, AcceptedLine)
    assert [ref.value for ref in verdict.images] == ["a.png"]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + text(native("a"), native("b")),
        text(native("a"), native("b")).replace(b"\n", b"\r\n"),
        text(native("a"), native("b")) + b"\n  \n",
        text(native("a"), native("b")).rstrip(b"\n"),
        gzip.compress(text(native("a"), native("b"))),
    ],
    ids=["byte order mark", "CRLF", "blank last line", "no last line end", "gzip"],
)
def test_harmless_variants_of_a_file(data: bytes):
    assert [codes(verdict) for verdict in judged(data).values()] == [[], []]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b" \r\n"])
def test_an_empty_file_is_an_error_of_its_own(data: bytes):
    with pytest.raises(BadInput) as caught:
        judged(data)
    assert (caught.value.code, caught.value.line) == ("empty_file", 1)


def test_too_many_lines_end_the_reading():
    with pytest.raises(BadInput) as caught:
        judged(text(native("a"), native("b"), native("c")), max_lines=2)
    assert (caught.value.code, caught.value.line) == ("too_many_tasks", 3)


def test_a_line_of_50_mb_is_cut_off_and_the_next_one_is_read():
    verdicts = judged([b'{"question": "', *[b"x" * 2**20] * 50, b'"}\n', text(native("after"))])
    assert codes(verdicts[1]) == [(None, "line_too_long")]
    assert codes(verdicts[2]) == []


def test_duplicates_name_the_first_line():
    verdicts = judged(text(native("a"), native("b"), native("a"), native("b", question=None), native("b")))
    assert [codes(verdict) for verdict in verdicts.values()] == [
        [],
        [],
        [("custom_id", "duplicate_custom_id")],
        [("question", "missing_required_parameter"), ("custom_id", "duplicate_custom_id")],
        [("custom_id", "duplicate_custom_id")],
    ]
    third = verdicts[3]
    assert isinstance(third, RefusedLine)
    assert "line 1" in third.errors[0].message


def test_a_chat_line_is_welcome_among_native_ones():
    verdicts = judged(text(native("a"), chat("b")))
    assert [codes(verdict) for verdict in verdicts.values()] == [[], []]
    verdicts = judged(text(native("a")), line_format="openai")
    assert ("body", "missing_required_parameter") in codes(verdicts[1])
