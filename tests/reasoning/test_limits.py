"""What a query answers when it must end: the best conclusion, or a failure that names the limit."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from reasoning.plan import Answer, Failed, plan
from reasoning.policy import Policy
from reasoning.records import Call, CallError, CallKind, CallSpec, CallStatus, Ref
from reasoning.stages import STAGES


def until(lab: Any, policy: Policy, last: str, **world: Any) -> list[Call]:
    """The rows of a search up to and with the call `last`; later ones were never planned."""
    _, rows = lab.world(**world).run(policy)
    keys = [row.spec.key for row in rows]
    return rows[: keys.index(last) + 1]


def test_before_any_conclusion_the_query_fails_with_the_limit(lab: Any) -> None:
    policy = Policy(candidates=3)
    for rows in ([], until(lab, policy, "reasoning/r0/generate/0-2")):
        decision = plan(policy, lab.query, rows, limit="deadline")
        assert isinstance(decision, Failed)
        assert decision.error.code == "deadline"
        assert decision.stage in decision.error.message


def test_conclusions_not_yet_judged_answer_by_majority_then_by_index(lab: Any) -> None:
    policy = Policy(candidates=3)
    rows = until(lab, policy, "conclusion/r0/generate/0-2")
    decision = plan(policy, lab.query, rows, limit="deadline")
    assert isinstance(decision, Answer)
    assert (decision.path[-1].index, decision.degraded) == (0, "deadline")
    kinds = {("conclusion", 1): "same", ("conclusion", 2): "same"}
    rows = until(lab, policy, "conclusion/r0/generate/0-2", kind=lambda s, i, a: kinds.get((s, i), "good"))
    decision = plan(policy, lab.query, rows, limit="deadline")
    assert isinstance(decision, Answer)
    assert decision.text == "the same"


def test_a_conclusion_that_won_already_comes_first(lab: Any) -> None:
    policy = Policy(candidates=4)
    rows = until(lab, policy, "conclusion/r0/compare/2v3")
    rows = [row for row in rows if row.spec.key != "conclusion/r0/compare/0v1"]
    decision = plan(policy, lab.query, rows, limit="deadline")
    assert isinstance(decision, Answer)
    assert decision.path[-1].index == 2


def test_some_of_the_conclusions_suffice(lab: Any) -> None:
    policy = Policy(candidates=3, fan_out="apart")
    rows = until(lab, policy, "conclusion/r0/generate/1")
    rows = [
        replace(r, status=CallStatus.LEASED, candidates=()) if r.spec.key == "conclusion/r0/generate/0" else r
        for r in rows
    ]
    decision = plan(policy, lab.query, rows, limit="deadline")
    assert isinstance(decision, Answer)
    assert decision.path[-1] == Ref("conclusion/r0/generate/1", 1)


def test_a_truncated_conclusion_is_better_than_none(lab: Any) -> None:
    policy = Policy(candidates=2, retries=1)
    rows = until(
        lab, policy, "conclusion/r0/generate/0-1", kind=lambda s, i, a: "truncated" if s == "conclusion" else "good"
    )
    decision = plan(policy, lab.query, rows, limit="deadline")
    assert isinstance(decision, Answer)
    assert (decision.text, decision.format_ok) == ("conclusion text 0 draw 0", False)


def test_a_conclusion_written_ahead_of_time_is_read(lab: Any) -> None:
    policy = Policy(candidates=1)
    rows = until(lab, policy, "reasoning/r0/generate/0")
    ahead = "".join(lab.tagged(stage, f"{stage} ahead") for stage in STAGES[2:])
    rows[-1] = replace(rows[-1], candidates=(replace(rows[-1].candidates[0], text=ahead),))
    decision = plan(policy, lab.query, rows, limit="deadline")
    assert isinstance(decision, Answer)
    assert (decision.text, len(decision.path), decision.format_ok) == ("conclusion ahead", 3, False)


def test_hidden_stages_are_never_the_answer(lab: Any) -> None:
    policy = Policy(strategy="single", retries=0)
    rows = until(lab, policy, "whole/r0/generate/0")
    rows[0] = replace(rows[0], candidates=(replace(rows[0].candidates[0], text="<SUMMARY>secret plan</SUMMARY>"),))
    for limit in (None, "deadline"):
        decision = plan(policy, lab.query, rows, limit=limit)
        assert isinstance(decision, Failed)
        assert "secret" not in decision.error.message


def test_a_policy_may_rather_fail(lab: Any) -> None:
    policy = Policy(candidates=2, on_limit="fail")
    rows = until(lab, policy, "conclusion/r0/generate/0-1")
    decision = plan(policy, lab.query, rows, limit="deadline")
    assert isinstance(decision, Failed)
    assert decision.error.code == "deadline"


def test_a_search_that_is_over_is_not_degraded_by_a_limit(lab: Any) -> None:
    decision, rows = lab.world().run(Policy())
    assert plan(Policy(), lab.query, rows, limit="deadline") == decision
    assert isinstance(decision, Answer)
    assert decision.degraded is None


@pytest.mark.parametrize("mode", ["strict", "published"])
def test_the_budget_stops_at_the_same_call_in_any_order(lab: Any, mode: Any) -> None:
    policy = Policy(mode=mode, candidates=3, token_budget=150, fan_out="apart", judge="words")
    decision, rows = lab.world().run(policy)
    spent = sum(row.usage.generated_tokens for row in rows)
    assert 150 <= spent < 150 + 3 * 20
    assert (decision.degraded if isinstance(decision, Answer) else decision.error.code) == "token_budget"
    for seed in range(5):
        assert lab.world().run(policy, order=Random(seed))[0] == decision


def test_without_a_tag_a_single_pass_answers_with_what_was_said(lab: Any) -> None:
    policy = Policy(strategy="single", retries=0)
    rows = until(lab, policy, "whole/r0/generate/0")
    rows[0] = replace(rows[0], candidates=(replace(rows[0].candidates[0], text="Two cubes."),))
    decision = plan(policy, lab.query, rows)
    assert isinstance(decision, Answer)
    assert (decision.text, decision.format_ok, decision.degraded) == ("Two cubes.", False, "incomplete_stage")


def test_a_call_that_failed_without_a_reason_is_still_explained(lab: Any) -> None:
    spec: CallSpec = lab.world().run(Policy(strategy="single"))[1][0].spec
    decision = plan(Policy(strategy="single"), lab.query, [Call(spec, CallStatus.CANCELLED)])
    assert isinstance(decision, Failed)
    assert (decision.error.code, spec.key in decision.error.message) == ("cancelled", True)


@pytest.mark.parametrize("judge", ["labels", "words"])
def test_a_judge_call_that_the_deadline_cut_off_ends_the_query_by_its_deadline(lab: Any, judge: str) -> None:
    """The worker's clock may be ahead of the planner's: the row says that the time is up."""
    policy = Policy(candidates=2, judge=judge)
    late = CallError("deadline", "the deadline passed before the call ended")
    for stage in STAGES:
        rows = [
            replace(row, status=CallStatus.FAILED, error=late, verdict=None)
            if row.spec.stage == stage and row.spec.kind is not CallKind.GENERATE
            else row
            for row in lab.world().run(policy)[1]
            if STAGES.index(row.spec.stage) <= STAGES.index(stage)
        ]
        decision = plan(policy, lab.query, rows)
        assert decision == plan(policy, lab.query, rows, limit="deadline")
        if stage == "conclusion":
            assert isinstance(decision, Answer)
            assert decision.degraded == "deadline"
        else:
            assert isinstance(decision, Failed)
            assert decision.error.code == "deadline"


def test_a_call_that_the_deadline_cut_off_is_no_lost_candidate(lab: Any) -> None:
    policy = Policy(candidates=2, fan_out="apart")
    late = CallError("deadline", "the deadline passed before the call ended")
    rows = [
        replace(row, status=CallStatus.FAILED, error=late, candidates=()) if row.spec.key.endswith("/1") else row
        for row in until(lab, policy, "caption/r0/generate/1")
        if row.spec.stage == "caption" or not row.spec.key.endswith("/1")
    ]
    decision = plan(policy, lab.query, rows)
    assert isinstance(decision, Failed)
    assert decision.error.code == "deadline"


def test_a_limit_says_what_to_raise_and_how_to_get_what_is_there(lab: Any) -> None:
    rows = until(lab, Policy(candidates=2), "conclusion/r0/generate/0-1")
    failing = plan(Policy(candidates=2, on_limit="fail"), lab.query, rows, limit="deadline")
    early = plan(Policy(candidates=2), lab.query, [], limit="deadline")
    assert isinstance(failing, Failed)
    assert isinstance(early, Failed)
    assert 'policy.on_limit is "fail"; "degrade" answers' in failing.error.message
    assert failing.error.retryable
    assert "policy.deadline_s" in failing.error.message
    assert "policy.deadline_s" in early.error.message
