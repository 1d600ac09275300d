"""The properties that everything else stands on: order, duplicates and failures do not change the decision."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasoning.errors import BadInput
from reasoning.plan import Answer, Failed, Next, plan
from reasoning.policy import Policy
from reasoning.records import Call, CallKind, CallSpec, CallStatus, Usage
from reasoning.strategies import STRATEGIES, strategy_named

policies = st.builds(
    Policy,
    strategy=st.sampled_from(sorted(STRATEGIES)),
    mode=st.sampled_from(["strict", "published"]),
    candidates=st.integers(1, 6),
    judge=st.sampled_from(["labels", "words"]),
    retries=st.integers(0, 2),
    judge_retries=st.integers(0, 2),
    swap_check=st.booleans(),
    fan_out=st.sampled_from(["auto", "together", "apart"]),
    token_budget=st.one_of(st.none(), st.integers(1, 900)),
    on_limit=st.sampled_from(["degrade", "fail"]),
    seed=st.integers(0, 5),
)
numbers = st.integers(0, 10**6)
rates = st.sampled_from([0.0, 0.1, 0.5, 0.9])


@given(policies, numbers, rates, numbers, numbers)
@settings(max_examples=150, deadline=None)
def test_the_decision_does_not_depend_on_the_order_of_outcomes(
    lab: Any, policy: Policy, world: int, faults: float, one: int, other: int
) -> None:
    first, first_rows = lab.random_world(world, faults).run(policy, order=Random(one))
    second, second_rows = lab.random_world(world, faults).run(policy, order=Random(other))
    assert first == second
    assert {c.spec.key: c for c in first_rows} == {c.spec.key: c for c in second_rows}
    if isinstance(first, Failed):
        assert first.error.message
        assert first.error.code in ("crash", "no_candidate", "token_budget")


@given(policies, numbers, rates, numbers)
@settings(max_examples=60, deadline=None)
def test_no_hint_mixes_the_two_shapes_of_a_stage(
    lab: Any, policy: Policy, world: int, faults: float, order: int
) -> None:
    dice = Random(order)
    _, rows = lab.random_world(world, faults).run(policy, order=dice, idle=lambda: dice.random() < 0.5)
    drawn = [
        (call.spec.stage, index, call.spec.attempt)
        for call in rows
        if call.spec.kind is CallKind.GENERATE
        for index in call.spec.indices
    ]
    assert len(drawn) == len(set(drawn))


@given(policies, numbers, rates, numbers)
@settings(max_examples=60, deadline=None)
def test_duplicate_and_foreign_rows_change_nothing(
    lab: Any, policy: Policy, world: int, faults: float, order: int
) -> None:
    decision, rows = lab.random_world(world, faults).run(policy, order=Random(order))
    foreign = Call(CallSpec("rejudge/r7/compare/0v1", CallKind.COMPARE, "caption"), CallStatus.FAILED)
    assert plan(policy, lab.query, [*rows, *rows[::2], foreign]) == decision
    assert plan(policy, lab.query, [foreign, *rows]) == decision


@given(policies, numbers, rates, numbers, st.data())
@settings(max_examples=100, deadline=None)
def test_any_subset_of_rows_gives_a_decision_and_a_limit_never_next(
    lab: Any, policy: Policy, world: int, faults: float, order: int, data: st.DataObject
) -> None:
    _, rows = lab.random_world(world, faults).run(policy, order=Random(order))
    some = [row for row in rows if data.draw(st.booleans())]
    plan(policy, lab.query, some)
    limited = plan(policy, lab.query, some, limit="deadline")
    assert not isinstance(limited, Next)
    assert plan(policy, lab.query, some[::-1], limit="deadline") == limited


@given(policies, numbers, rates, numbers, st.integers(0, 40))
@settings(max_examples=100, deadline=None)
def test_a_limit_decides_the_same_after_the_open_calls_were_cancelled(
    lab: Any, policy: Policy, world: int, faults: float, order: int, outcomes: int
) -> None:
    policy = replace(policy, token_budget=None)
    _, rows = lab.random_world(world, faults).run(policy, order=Random(order), outcomes=outcomes)
    cancelled = [row if row.ended else replace(row, status=CallStatus.CANCELLED) for row in rows]
    assert plan(policy, lab.query, rows, limit="deadline") == plan(policy, lab.query, cancelled, limit="deadline")


@given(policies, numbers, rates, numbers)
@settings(max_examples=60, deadline=None)
def test_the_stored_path_is_the_one_a_replay_from_the_first_stage_yields(
    lab: Any, policy: Policy, world: int, faults: float, order: int
) -> None:
    decision, rows = lab.random_world(world, faults).run(policy, order=Random(order))
    winners = [
        step.winner.ref for step in strategy_named(policy.strategy).steps(policy, lab.query, rows) if step.winner
    ]
    for row in rows:
        assert list(row.spec.path) == winners[: len(row.spec.path)]
    if isinstance(decision, Answer) and decision.degraded != "token_budget":
        assert list(decision.path) == winners


def test_the_keys_of_a_healthy_search_are_those_of_the_design(lab: Any) -> None:
    decision, rows = lab.world().run(Policy(candidates=4))
    caption = [row.spec.key for row in rows if row.spec.stage == "caption"]
    assert caption == [
        "caption/r0/generate/0-3",
        "caption/r0/compare/0v1",
        "caption/r0/compare/2v3",
        "caption/r0/compare/0v2",
    ]
    assert isinstance(decision, Answer)
    assert decision.text == "conclusion text 0 draw 0"
    assert decision.format_ok
    assert decision.degraded is None
    assert [ref.call for ref in decision.path] == [
        f"{s}/r0/generate/0-3" for s in ("summary", "caption", "reasoning", "conclusion")
    ]


def test_idle_workers_get_one_call_each_and_a_fixed_fan_out_is_kept(lab: Any) -> None:
    def first(fan_out: Any, *, idle: bool) -> int:
        decision = plan(Policy(candidates=3, fan_out=fan_out), lab.query, [], idle=idle)
        assert isinstance(decision, Next)
        return len(decision.calls)

    assert [first("auto", idle=False), first("auto", idle=True)] == [1, 3]
    assert [first("together", idle=True), first("apart", idle=False)] == [1, 3]


def test_an_unknown_strategy_names_the_nearest(lab: Any) -> None:
    with pytest.raises(BadInput, match='Did you mean "stage_beam"') as caught:
        plan(Policy(strategy="stage_bean"), lab.query, [])
    assert (caught.value.code, caught.value.field) == ("unknown_strategy", "policy.strategy")


def test_a_failed_call_costs_its_candidates_and_the_search_goes_on(lab: Any) -> None:
    policy = Policy(candidates=3, fan_out="apart")
    decision, _ = lab.world(fails=lambda spec: spec.key == "caption/r0/generate/0").run(policy)
    assert isinstance(decision, Answer)
    assert decision.path[1].index == 1
    assert decision.degraded == "lost_candidates"


def test_when_all_candidates_fail_the_first_by_index_is_named_not_the_first_to_arrive(lab: Any) -> None:
    policy = Policy(candidates=3, fan_out="apart")
    for seed in range(5):
        decision, _ = lab.world(fails=lambda spec: spec.stage == "caption").run(policy, order=Random(seed))
        assert isinstance(decision, Failed)
        assert (decision.stage, decision.error.message) == ("caption", "engine failed at caption/r0/generate/0")
        assert decision.error.attempts == 3


def test_a_judge_that_fails_is_settled_by_seed_and_said(lab: Any) -> None:
    decision, _ = lab.world(fails=lambda spec: spec.kind is CallKind.COMPARE).run(Policy(candidates=2))
    assert isinstance(decision, Answer)
    assert decision.degraded == "judge_failed"


def test_the_token_budget_counts_judging_and_waits_for_open_calls(lab: Any) -> None:
    policy = Policy(candidates=2, token_budget=25, fan_out="apart", judge="words")
    first = plan(policy, lab.query, [])
    assert isinstance(first, Next)
    spent = replace(lab.world().outcome(first.calls[0]), usage=Usage(generated_tokens=30))
    assert plan(policy, lab.query, [spent, Call(first.calls[1])]) == Next()
    decision = plan(policy, lab.query, [spent, lab.world().outcome(first.calls[1])])
    assert isinstance(decision, Failed)
    assert (decision.error.code, decision.stage) == ("token_budget", "summary")


def test_with_a_budget_a_retry_waits_for_open_calls_so_that_arrival_does_not_decide(lab: Any) -> None:
    policy = Policy(candidates=2, token_budget=15, fan_out="apart")
    world = lab.world(kind=lambda stage, i, attempt: "truncated" if i == 0 else "good")
    first = plan(policy, lab.query, [])
    assert isinstance(first, Next)
    cut, other = first.calls
    assert plan(policy, lab.query, [world.outcome(cut), Call(other)]) == Next()
    decisions = [world.run(policy, order=Random(seed))[0] for seed in range(6)]
    assert decisions == decisions[:1] * 6


def test_a_stage_begun_one_call_each_goes_on_so(lab: Any) -> None:
    first = plan(Policy(candidates=3), lab.query, [], idle=True)
    assert isinstance(first, Next)
    rest = plan(Policy(candidates=3), lab.query, [Call(first.calls[1])], idle=False)
    assert rest == Next((first.calls[0], first.calls[2]))


@pytest.mark.parametrize("kind", [CallKind.CHECK, CallKind.COMPARE])
def test_a_judge_that_fails_in_published_mode_is_said_too(lab: Any, kind: CallKind) -> None:
    decision, _ = lab.world(fails=lambda spec: spec.kind is kind).run(Policy(mode="published", candidates=2))
    assert isinstance(decision, Answer)
    assert decision.degraded == "judge_failed"
