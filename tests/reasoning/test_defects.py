"""The defects of the published code (reference/method.md section 2.5), each absent in strict mode."""

from __future__ import annotations

from typing import Any

import pytest

from reasoning.plan import Answer, Next, plan
from reasoning.policy import Policy
from reasoning.prompts import policy_prompt
from reasoning.records import CallKind, CallSpec, Finish, Showing
from reasoning.render import render_compare, render_generate
from reasoning.strategies import strategy_named

ALIKE = {"summary": "same", "caption": "same", "reasoning": "same"}
"""Stages that need no judge, so that a test looks at CONCLUSION alone."""


def unreadable(spec: CallSpec, order: tuple[int, ...]) -> Showing:
    return Showing(order, "h", "unparseable", None, "<SUMMARY>I shall compare")


def conclusions(lab: Any, rows: Any) -> list[str]:
    return [row.spec.key for row in rows if row.spec.stage == "conclusion"]


def last_step(lab: Any, policy: Policy, rows: Any) -> Any:
    return strategy_named(policy.strategy).steps(policy, lab.query, rows)[-1]


def test_a_an_unreadable_verdict_is_asked_again_and_then_a_tie_by_seed(lab: Any) -> None:
    winners = set()
    for seed in range(20):
        policy = Policy(candidates=2, judge="words", seed=seed, judge_retries=1)
        world = lab.world(kind=lambda stage, i, a: ALIKE.get(stage, "good"), show=unreadable)
        decision, rows = world.run(policy)
        assert conclusions(lab, rows)[1:] == ["conclusion/r0/compare/0v1", "conclusion/r0/compare/0v1/a1"]
        ruling = last_step(lab, policy, rows).selection.rulings[0, 1]
        assert ruling.how == "seed"
        assert isinstance(decision, Answer)
        winners.add(decision.path[-1].index)
    assert winners == {0, 1}


def test_a_a_second_asking_that_can_be_read_decides(lab: Any) -> None:
    def show(spec: CallSpec, order: tuple[int, ...]) -> Showing:
        return unreadable(spec, order) if spec.attempt == 0 else Showing(order, "h", "ok", 1, "so 2")

    policy = Policy(candidates=2, judge="words")
    decision, rows = lab.world(kind=lambda s, i, a: ALIKE.get(s, "good"), show=show).run(policy)
    assert last_step(lab, policy, rows).selection.rulings[0, 1].how == "agreed"
    assert isinstance(decision, Answer)
    assert decision.path[-1].index == 1


@pytest.mark.parametrize(("first_shown", "winner"), [(0.9, "first"), (0.3, "second")])
def test_b_both_orders_are_shown_and_a_disagreement_goes_to_the_mean_margin(
    lab: Any, first_shown: float, winner: str
) -> None:
    """A judge that leans to the place: label 1 with 0.6 in one order, with `first_shown` in the other."""

    def show(spec: CallSpec, order: tuple[int, ...]) -> Showing:
        left = first_shown if order == (0, 1) else 0.6
        return Showing(order, "h", "ok", order[0 if left > 0.5 else 1], "", (left, 1 - left))

    policy = Policy(candidates=2)
    decision, rows = lab.world(kind=lambda s, i, a: ALIKE.get(s, "good"), show=show).run(policy)
    ruling = last_step(lab, policy, rows).selection.rulings[0, 1]
    assert isinstance(decision, Answer)
    assert decision.path[-1].index == ruling.winner == (0 if winner == "first" else 1)
    assert ruling.margin == pytest.approx(((2 * first_shown - 1) - 0.2) / 2)
    assert ruling.how == ("margin" if first_shown > 0.5 else "agreed")
    assert ruling.swap_agreed is (first_shown < 0.5)


def test_b_words_that_disagree_are_an_explicit_tie(lab: Any) -> None:
    def always_first(spec: CallSpec, order: tuple[int, ...]) -> Showing:
        return Showing(order, "h", "ok", order[0], "I choose response 1")

    policy = Policy(candidates=2, judge="words")
    _, rows = lab.world(kind=lambda s, i, a: ALIKE.get(s, "good"), show=always_first).run(policy)
    ruling = last_step(lab, policy, rows).selection.rulings[0, 1]
    assert (ruling.how, ruling.swap_agreed) == ("seed", False)


def test_c_an_unclosed_candidate_is_drawn_again_and_never_shifts_the_others(lab: Any) -> None:
    kinds = {(1, 0): "no_close_tag", (1, 1): "no_close_tag", (1, 2): "no_close_tag"}
    policy = Policy(candidates=3, retries=2)
    decision, rows = lab.world(kind=lambda s, i, a: kinds.get((i, a), "good")).run(policy)
    caption = [row.spec.key for row in rows if row.spec.stage == "caption"]
    assert caption == [
        "caption/r0/generate/0-2",
        "caption/r0/generate/1/a1",
        "caption/r0/generate/1/a2",
        "caption/r0/compare/0v2",
    ]
    assert isinstance(decision, Answer)
    assert decision.degraded is None


@pytest.mark.parametrize("kind", ["truncated", "early_end", "empty"])
def test_d_e_cut_off_and_early_ended_stages_are_drawn_again(lab: Any, kind: str) -> None:
    policy = Policy(candidates=2, retries=1)
    world = lab.world(kind=lambda s, i, a: kind if (s, i, a) == ("caption", 0, 0) else "good")
    decision, _ = world.run(policy)
    assert isinstance(decision, Answer)
    assert decision.degraded is None
    assert decision.path[1].call == "caption/r0/generate/0/a1"


@pytest.mark.parametrize("kind", ["truncated", "early_end"])
def test_d_e_where_nothing_better_comes_the_text_is_closed_and_the_answer_degraded(lab: Any, kind: str) -> None:
    policy = Policy(candidates=2, retries=1)
    decision, rows = lab.world(kind=lambda s, i, a: kind if s == "caption" else "good").run(policy)
    assert isinstance(decision, Answer)
    assert decision.degraded == "incomplete_stage"
    assert not decision.format_ok
    calls = {row.spec.key: row for row in rows}
    drawing = render_generate(policy, lab.query, calls["conclusion/r0/generate/0-1"].spec, calls, "standard")
    assert drawing.prompt.prefix.count("</CAPTION><REASONING>") == 1
    assert drawing.prefix_ids == (), "token ids of broken text must not be continued"


def test_f_identical_candidates_are_not_judged(lab: Any) -> None:
    decision, rows = lab.world(kind=lambda s, i, a: "same").run(Policy(candidates=4))
    assert [row.spec.kind for row in rows] == [CallKind.GENERATE] * 4
    assert isinstance(decision, Answer)
    assert decision.path[-1].index == 0


def test_f_two_of_a_kind_compete_as_one_under_the_lower_index(lab: Any) -> None:
    world = lab.world(kind=lambda s, i, a: "same" if i in (1, 3) else "good")
    _, rows = world.run(Policy(candidates=4))
    assert [row.spec.key for row in rows if row.spec.stage == "summary"][1:] == [
        "summary/r0/compare/0v1",
        "summary/r0/compare/0v2",
    ]


def test_g_a_text_without_a_period_or_tag_raises_nowhere(lab: Any) -> None:
    policy = Policy(candidates=1, retries=0)
    first = plan(policy, lab.query, [])
    assert isinstance(first, Next)
    blank = lab.change(lab.candidate("good", "summary", 0), text="no period no tag", finish=Finish.EARLY_END)
    row = lab.change(lab.world().outcome(first.calls[0]), candidates=(blank,))
    assert isinstance(plan(policy, lab.query, [row]), Next)


def test_j_every_image_reaches_the_model_and_the_judge(lab: Any) -> None:
    assert policy_prompt(lab.query, "standard", "").images == lab.query.images
    policy = Policy(candidates=2)
    _, rows = lab.world().run(policy)
    calls = {row.spec.key: row for row in rows}
    shown = render_compare(policy, lab.query, calls["caption/r0/compare/0v1"].spec, calls, "standard")
    assert [judging.prompt.images for judging in shown] == [lab.query.images] * 2
