"""Published mode reproduces the published algorithm, its costs and its fallbacks."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from reasoning.cost import cost_of
from reasoning.plan import Answer, Failed
from reasoning.policy import Policy
from reasoning.records import CallKind, CallSpec, Showing
from reasoning.stages import STAGES

TABLE = [(2, 8, 4, 6, 12, 14), (3, 12, 8, 12, 20, 24), (4, 16, 12, 18, 28, 34), (10, 40, 36, 54, 76, 94)]
"""method.md section 2.6: N, generate calls, judge calls at least and at most, all calls at least and at most."""


def checks(passes: bool) -> Any:
    def show(spec: CallSpec, order: tuple[int, ...]) -> Showing:
        if spec.kind is CallKind.CHECK:
            return Showing(order, "h", "ok", order[0] if passes else None, "correct" if passes else "incorrect")
        return Showing(order, "h", "ok", order[0], "I choose response 1")

    return show


@pytest.mark.parametrize(("n", "generate", "least", "most", "all_least", "all_most"), TABLE)
def test_the_published_table_of_calls(
    lab: Any, n: int, generate: int, least: int, most: int, all_least: int, all_most: int
) -> None:
    policy = Policy(mode="published", candidates=n, fan_out="apart")
    cost = cost_of(policy)
    assert (cost.candidates_min, cost.verdicts_min, cost.verdicts_max) == (generate, least, most)
    assert cost.candidates_max == generate
    for passes, judged, total in ((False, least, all_least), (True, most, all_most)):
        _, rows = lab.world(show=checks(passes)).run(policy)
        kinds = [row.spec.kind for row in rows]
        assert kinds.count(CallKind.GENERATE) == generate
        assert len(kinds) - kinds.count(CallKind.GENERATE) == judged
        assert len(kinds) == total


@pytest.mark.parametrize("mode", ["published", "strict"])
def test_a_single_pass_is_one_call(lab: Any, mode: Any) -> None:
    policy = Policy(strategy="single", mode=mode)
    decision, rows = lab.world().run(policy)
    assert [row.spec.key for row in rows] == ["whole/r0/generate/0"]
    assert isinstance(decision, Answer)
    assert decision.text == "whole text 0 draw 0"
    cost = cost_of(policy)
    assert (cost.candidates_min, cost.verdicts_max) == (1, 0)


def test_strict_mode_costs_at_most_one_verdict_a_pair_in_two_showings(lab: Any) -> None:
    cost = cost_of(Policy(candidates=4, retries=0), queries=10)
    assert (cost.candidates_max, cost.verdicts_min, cost.verdicts_max, cost.showings_max) == (160, 0, 120, 240)
    _, rows = lab.world().run(Policy(candidates=4))
    assert sum(row.spec.kind is CallKind.COMPARE for row in rows) == 12
    assert (cost + cost).queries == 20


def test_an_unreadable_verdict_counts_for_the_second_shown(lab: Any) -> None:
    def show(spec: CallSpec, order: tuple[int, ...]) -> Showing:
        return Showing(order, "h", "unparseable", None, "hm")

    decision, rows = lab.world(show=show).run(Policy(mode="published", candidates=2))
    shown = next(row.spec.candidates for row in rows if row.spec.key.startswith("conclusion/r0/compare"))
    assert isinstance(decision, Answer)
    assert decision.path[-1] == shown[1]


def test_the_first_reasoning_found_incorrect_loses_unread_against_the_other(lab: Any) -> None:
    decision, rows = lab.world(show=checks(passes=False)).run(Policy(mode="published", candidates=2))
    reasoning = [row.spec for row in rows if row.spec.stage == "reasoning"][1:]
    assert [spec.kind for spec in reasoning] == [CallKind.CHECK]
    assert isinstance(decision, Answer)
    assert decision.path[2] != reasoning[0].candidates[0]


def test_one_comparison_at_a_time_in_an_order_set_by_the_seed(lab: Any) -> None:
    orders = set()
    for seed in range(8):
        _, rows = lab.world().run(Policy(mode="published", candidates=4, seed=seed), order=Random(seed))
        orders.add(tuple(row.spec.key for row in rows if row.spec.stage == "summary"))
        assert not any(row.spec.swap for row in rows)
    assert len(orders) > 1


def test_unclosed_candidates_are_dropped_and_none_left_is_explained(lab: Any) -> None:
    policy = Policy(mode="published", candidates=3)
    decision, rows = lab.world(kind=lambda s, i, a: "truncated" if i < 2 else "good").run(policy)
    assert isinstance(decision, Answer)
    assert {ref.index for ref in decision.path} == {2}
    assert [row.spec.key for row in rows] == [f"{stage}/r0/generate/0-2" for stage in STAGES]
    failed, rows = lab.world(kind=lambda s, i, a: "truncated" if s == "reasoning" else "good").run(policy)
    assert isinstance(failed, Failed)
    assert (failed.error.code, failed.stage) == ("no_candidate", "reasoning")
    assert "policy.max_tokens" in failed.error.message


def test_identical_candidates_are_judged_as_published(lab: Any) -> None:
    _, rows = lab.world(kind=lambda s, i, a: "same").run(Policy(mode="published", candidates=2))
    assert sum(row.spec.kind is CallKind.COMPARE for row in rows) == 4
