from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reasoning.prompts import compare_prompt
from reasoning.records import Query
from reasoning.stages import Stage

QUERY = Query("q", "How many?", ("image",))
texts = st.lists(st.sampled_from(["red", "green", "ball", "cube", "#1"]), max_size=60).map(" ".join)


def compact(first: str, second: str) -> dict[str, str]:
    """The lines of a compact comparison by their heads."""
    text = compare_prompt(QUERY, "compact", "labels", Stage.CAPTION, {}, (first, second)).messages[0].text
    return {head: rest for head, _, rest in (line.partition(" : ") for line in text.split("\n"))}


@given(texts, texts)
def test_a_compact_comparison_says_once_what_both_begin_with(first: str, second: str) -> None:
    shown, swapped = compact(first, second), compact(second, first)
    both = shown.get("both", "")
    assert (shown["1"], shown["2"], both) == (swapped["2"], swapped["1"], swapped.get("both", ""))
    assert both in first
    assert both in second
    if first != second:
        assert shown["1"] != shown["2"]
    for text, rest in ((first, shown["1"]), (second, shown["2"])):
        assert f"{both} {rest}".strip() in text


def test_a_compact_comparison_shows_what_differs_and_a_little_after() -> None:
    shown = compact("#1 red ball #2 green cube #3 red cube", "#1 red ball #2 green ball #3 red cube")
    assert shown["both"] == "#1 red ball #2 green"
    assert (shown["1"], shown["2"]) == ("cube #3 red cube", "ball #3 red cube")
