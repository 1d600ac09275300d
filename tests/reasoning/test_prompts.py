from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reasoning.prompts import compare_prompt
from reasoning.records import Query
from reasoning.stages import Stage

QUERY = Query("q", "How many?", ("image",))
texts = st.lists(st.sampled_from(["red", "green", "ball", "ball.", "#1"]), max_size=60).map(" ".join)


def compact(first: str, second: str) -> tuple[str, str, str, tuple[str, str]]:
    """What a compact comparison says once, what of either text, and its labels."""
    prompt = compare_prompt(QUERY, "compact", "labels", Stage.CAPTION, {}, (first, second))
    lines = dict(line.split(" : ", 1) for line in prompt.messages[0].text.split("\n")[1:3])
    return prompt.prefix.removeprefix("<CAPTION>"), lines["1"], lines["2"], prompt.labels


@given(texts, texts)
def test_a_compact_comparison_goes_on_from_where_the_texts_part(first: str, second: str) -> None:
    both, ours, theirs, labels = compact(first, second)
    assert compact(second, first) == (both, theirs, ours, labels[::-1])
    for text, rest, label in zip((first, second), (ours, theirs), labels, strict=True):
        assert text.startswith(both)
        assert text.removeprefix(both).strip().startswith(rest)
        assert (rest or "</CAPTION>").startswith(label)
    if first != second:
        assert labels[0] != labels[1]


def test_a_compact_comparison_shows_what_differs_and_a_little_after() -> None:
    found = compact("#1 red ball #2 green cube #3 red cube", "#1 red ball #2 green ball #3 red cube")
    assert found == ("#1 red ball #2 green", "cube #3 red cube", "ball #3 red cube", ("cube", "ball"))


def test_the_path_of_a_compact_comparison_is_the_models_own_turn() -> None:
    kept = {Stage.SUMMARY: "Count.", Stage.CAPTION: "#1 red ball"}
    prompt = compare_prompt(QUERY, "compact", "labels", Stage.REASONING, kept, ("one red", "one green"))
    assert prompt.prefix == "<CAPTION>#1 red ball</CAPTION><REASONING>one"
    assert compare_prompt(QUERY, "compact", "labels", "whole", {}, ("a b", "a c")).prefix == "a"
