from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasoning.grammar import Reading, continuation, read, read_answer, read_stage
from reasoning.records import WHOLE
from reasoning.stages import STAGES, Stage

CAPTION = Stage.CAPTION


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<CAPTION>a cube</CAPTION>", Reading("a cube", True, True)),
        ("\n\n<CAPTION> a < b <i>x</i> </CAPTION>\n", Reading("a < b <i>x</i>", True, True)),
        ("a cube</CAPTION>", Reading("a cube", True, False)),
        ("<caption>a cube</Caption>", Reading("a cube", True, False)),
        ("< CAPTION >a cube</ CAPTION >", Reading("a cube", True, False)),
        ("(Here begins the CAPTION stage) a cube (Here ends the CAPTION stage)", Reading("a cube", True, False)),
        ("<CAPTION>a cube", Reading("a cube", False, False)),
        ("a cube", Reading("a cube", False, False)),
        ("<CAPTION>a cube<REASONING>so", Reading("a cube", False, False)),
        ("<CAPTION></CAPTION>", Reading("", False, True)),
        ("Sure! <CAPTION>a cube</CAPTION>", Reading("a cube", True, False)),
        ("<CAPTION>a cube</CAPTION><REASONING>one</REASONING>", Reading("a cube", True, False)),
        ("<SUMMARY>again</SUMMARY>a cube</CAPTION>", Reading("a cube", True, False)),
        ("<CAPTION>the sign says <SUMMARY></CAPTION>", Reading("the sign says <SUMMARY>", True, False)),
        ("<CAPTION>a<CAPTION>b</CAPTION>", Reading("a<CAPTION>b", True, False)),
        ("", Reading("", False, False)),
    ],
)
def test_each_variant_is_read_and_told_from_the_strict_form(text: str, expected: Reading) -> None:
    assert read_stage(text, CAPTION) == expected


def test_a_whole_answer_yields_its_conclusion() -> None:
    strict = "\n".join(f"{s.open_tag}{s} text{s.close_tag}" for s in STAGES)
    assert read(strict, WHOLE) == Reading("conclusion text", True, True)
    assert {s: reading.inner for s, reading in read_answer(strict).items()} == {s: f"{s} text" for s in STAGES}
    assert read(strict.replace("</CAPTION>", ""), WHOLE) == Reading("conclusion text", True, False)
    assert read(strict.replace("</CONCLUSION>", ""), WHOLE) == Reading("conclusion text", False, False)


def test_a_conclusion_quoted_in_the_plan_is_not_the_answer() -> None:
    text = "<SUMMARY>end with <CONCLUSION>A</CONCLUSION></SUMMARY><CONCLUSION>B</CONCLUSION>"
    assert read(text, WHOLE).inner == "B"


def test_without_a_conclusion_the_hidden_stages_stay_hidden() -> None:
    assert read("<SUMMARY>plan</SUMMARY><CAPTION>a cu", WHOLE).inner == ""
    assert read("Two.", WHOLE) == Reading("Two.", False, False)


def test_the_next_stage_goes_on_from_the_strict_form() -> None:
    assert continuation("\n<CAPTION>a</CAPTION>", CAPTION) == ("\n<CAPTION>a</CAPTION>", True)
    assert continuation("<CAPTION>a cu", CAPTION) == ("<CAPTION>a cu</CAPTION>", False)
    assert continuation("a</CAPTION><REASONING>far ahead", CAPTION) == ("<CAPTION>a</CAPTION>", False)


pieces = st.sampled_from(
    [f"{a}{s.tag}{b}" for s in STAGES for a, b in (("<", ">"), ("</", ">"), ("(Here begins the ", " stage)"))]
    + ["<", ">", "</", "(Here ", " ", "\n", "x", "\x00", "\u202e", "<summary >", "(here ends the caption stage)"]
)


@given(st.lists(st.one_of(pieces, st.text(max_size=5)), max_size=30).map("".join), st.sampled_from([*STAGES, WHOLE]))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_without_raising_and_reading_a_continuation_is_stable(text: str, stage: str) -> None:
    reading = read(text, stage)
    assert reading.inner == reading.inner.strip()
    assert reading.inner in text
    assert bool(reading.inner) >= reading.complete
    written, exact = continuation(text, stage)
    assert written == text or not exact
    if stage != WHOLE:
        assert continuation(written, stage)[0].count(Stage(stage).close_tag) >= 1


@pytest.mark.parametrize(
    "unit",
    ["<", "< ", "<CAPTION>", "</CAPTION>", "<CAPTION></SUMMARY>", "(Here ", "( here begins the ", "x" * 9, "<\t"],
)
def test_megabytes_of_hostile_text_take_linear_time(unit: str) -> None:
    text = unit * (2_000_000 // len(unit))
    began = time.perf_counter()
    for stage in (CAPTION, WHOLE):
        read(text, stage)
    # Quadratic time would be hours; linear is about a second on a slow machine.
    assert time.perf_counter() - began < 15
