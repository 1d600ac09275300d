"""From rows to prompts and from replies to showings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning import replies
from reasoning.errors import InvariantBroken
from reasoning.policy import Policy
from reasoning.records import Showing
from reasoning.render import needed_keys, render_check, render_compare, render_generate


def played(lab: Any, policy: Policy) -> dict[str, Any]:
    return {row.spec.key: row for row in lab.world().run(policy)[1]}


def test_a_stage_continues_the_kept_text_and_its_token_ids(lab: Any) -> None:
    calls = played(lab, Policy(candidates=2))
    spec = calls["reasoning/r0/generate/0-1"].spec
    drawing = render_generate(Policy(candidates=2), lab.query, spec, calls, "tuned")
    prefix = "<SUMMARY>summary text 0 draw 0</SUMMARY><CAPTION>caption text 0 draw 0</CAPTION>"
    assert drawing.prompt.prefix == prefix
    assert drawing.prefix_ids == tuple(prefix.encode())
    assert (drawing.stop, drawing.indices, len(set(drawing.seeds))) == ("</REASONING>", (0, 1), 2)
    assert [message.role for message in drawing.prompt.messages] == ["user"]
    assert needed_keys(spec) == {"summary/r0/generate/0-1", "caption/r0/generate/0-1"}


def test_without_ids_of_every_kept_candidate_there_are_none(lab: Any) -> None:
    calls = played(lab, Policy(candidates=1))
    row = calls["summary/r0/generate/0"]
    calls["summary/r0/generate/0"] = lab.change(row, candidates=(lab.change(row.candidates[0], token_ids=()),))
    drawing = render_generate(Policy(candidates=1), lab.query, calls["reasoning/r0/generate/0"].spec, calls, "tuned")
    assert drawing.prefix_ids == ()


def test_the_same_candidate_draws_the_same_noise_in_either_shape(lab: Any) -> None:
    seeds = []
    for fan_out in ("together", "apart"):
        policy = Policy(candidates=3, fan_out=fan_out)
        calls = played(lab, policy)
        rows = [row.spec for row in calls.values() if row.spec.key.startswith("caption/r0/generate")]
        seeds.append([s for spec in rows for s in render_generate(policy, lab.query, spec, calls, "tuned").seeds])
    assert seeds[0] == seeds[1]


def test_the_style_of_the_policy_comes_before_that_of_the_model(lab: Any) -> None:
    policy = Policy(candidates=1, prompts="standard")
    calls = played(lab, policy)
    drawing = render_generate(policy, lab.query, calls["summary/r0/generate/0"].spec, calls, "compact")
    assert drawing.prompt.messages[0].role == "system"


def test_a_single_pass_stops_at_the_conclusion(lab: Any) -> None:
    policy = Policy(strategy="single")
    calls = played(lab, policy)
    drawing = render_generate(policy, lab.query, calls["whole/r0/generate/0"].spec, calls, "tuned")
    assert (drawing.stop, drawing.prompt.prefix, drawing.prefix_ids) == ("</CONCLUSION>", "", ())


def test_a_comparison_shows_both_orders_and_the_hints(lab: Any) -> None:
    policy = Policy(candidates=2)
    calls = played(lab, policy)
    spec = calls["conclusion/r0/compare/0v1"].spec
    first, second = render_compare(policy, lab.query, spec, calls, "standard")
    assert (first.order, second.order) == ((0, 1), (1, 0))
    assert first.prompt.messages[0].text.index("text 0 draw 0\nResponse 2") > 0
    assert "Hint: caption text 0 draw 0 reasoning text 0 draw 0" in first.prompt.messages[0].text
    assert first.prompt.digest != second.prompt.digest
    assert first.seed != second.seed
    assert (first.judge, render_compare(policy, lab.query, spec, calls, "standard", judge="words")[0].judge) == (
        "labels",
        "words",
    )


def test_a_pre_check_has_the_caption_and_no_image(lab: Any) -> None:
    policy = Policy(mode="published", candidates=2)
    calls = played(lab, policy)
    spec = next(call.spec for key, call in calls.items() if "/check/" in key)
    check = render_check(policy, lab.query, spec, calls)
    caption = spec.path[1].index
    assert check.prompt.images == ()
    assert f"Description: caption text {caption} draw 0" in check.prompt.messages[0].text
    assert check.order == (spec.candidates[0].index,)


def test_a_path_that_is_not_stored_is_a_bug_not_a_prompt(lab: Any) -> None:
    calls = played(lab, Policy(candidates=1))
    with pytest.raises(InvariantBroken, match="summary/r0/generate/0"):
        render_generate(Policy(), lab.query, calls["caption/r0/generate/0"].spec, {}, "tuned")


@pytest.mark.parametrize(
    ("text", "published", "strict"),
    [
        ("Since it is exact, I choose response 1.", 0, 0),
        ("Since it is exact, I choose response 2.", 1, 1),
        ("I choose response [2].", None, 1),
        ("i CHOOSE Response 1", None, 0),
        ("2", None, 1),
        ("Response 1.", None, 0),
        ("I choose response 1. No, I choose response 2.", 0, None),
        ("Response 1 is long and response 2 is short.", None, None),
        ("I choose response 12", 0, None),
        ("I would not choose response 1.", None, None),
        ("I don't prefer response 1; I choose response 2.", 1, 1),
        ("<SUMMARY>I will compare", None, None),
        ("", None, None),
    ],
)
def test_words_are_read_as_published_or_strictly(text: str, published: int | None, strict: int | None) -> None:
    order = (5, 3)
    for mode, expected in (("published", published), ("strict", strict)):
        showing = replies.read_words_comparison(text, mode, order=order, prompt_hash="h")  # type: ignore[arg-type]
        assert showing.choice == (None if expected is None else order[expected])
        assert showing.parse == ("unparseable" if expected is None else "ok")
        assert showing.words == text


@pytest.mark.parametrize(
    ("values", "choice", "parse"),
    [
        ((0.7, 0.3), 5, "ok"),
        ((0.2, 0.8), 3, "ok"),
        ((0.5, 0.5), None, "ok"),
        ((float("nan"), 0.5), None, "unparseable"),
        ((1.0,), None, "unparseable"),
        ((-1.0, 2.0), None, "unparseable"),
    ],
)
def test_label_probabilities_choose_by_the_order_shown(values: Any, choice: int | None, parse: str) -> None:
    showing = replies.read_labels(values, order=(5, 3), prompt_hash="h")
    assert (showing.choice, showing.parse) == (choice, parse)
    json.dumps(showing.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("text", "parse", "choice"),
    [("correct", "ok", 2), ("It is incorrect.", "ok", None), ("hm", "unparseable", None)],
)
def test_a_pre_check_is_read(text: str, parse: str, choice: int | None) -> None:
    for mode in ("published", "strict"):
        showing = replies.read_check(text, mode, index=2, prompt_hash="h")  # type: ignore[arg-type]
        assert (showing.parse, showing.choice) == (parse, choice)


def test_a_denial_is_only_strictly_understood() -> None:
    assert replies.read_check("This is not correct.", "strict", index=0, prompt_hash="h").choice is None
    assert replies.read_check("This is not correct.", "published", index=0, prompt_hash="h").choice == 0


@given(st.text(max_size=200))
def test_no_reply_raises_and_showings_survive_json(text: str) -> None:
    for mode in ("published", "strict"):
        showing = replies.read_words_comparison(text, mode, order=(0, 1), prompt_hash="h")  # type: ignore[arg-type]
        assert Showing.from_json(json.loads(json.dumps(showing.to_json()))) == showing
        replies.read_check(text, mode, index=0, prompt_hash="h")  # type: ignore[arg-type]
