"""The tree built on read says what happened to each candidate, and its tokens add up."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reasoning import keys
from reasoning.plan import Answer, Next, plan
from reasoning.policy import Policy
from reasoning.records import Call, CallKind, CallSpec, CallStatus, Ref, Usage
from reasoning.trace import build_trace
from reasoning.usage import spent


@given(
    st.sampled_from(["single", "stage_beam"]),
    st.sampled_from(["strict", "published"]),
    st.integers(1, 5),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.3, 0.8]),
    st.integers(0, 60),
)
@settings(max_examples=120, deadline=None)
def test_tokens_add_up_and_the_document_is_json_at_every_moment(
    lab: Any, strategy: str, mode: Any, n: int, seed: int, faults: float, outcomes: int
) -> None:
    policy = Policy(strategy=strategy, mode=mode, candidates=n)
    decision, rows = lab.random_world(seed, faults).run(policy, order=Random(seed), outcomes=outcomes)
    document = build_trace(policy, lab.query, rows[::-1])
    json.dumps(document, allow_nan=False)
    counted = sum(row.usage.generated_tokens for row in rows)
    usage = document["usage"]
    assert usage["kept"] + usage["discarded"] + usage["judged"] == counted == usage["total"]["generated_tokens"]
    assert min(usage["kept"], usage["discarded"], usage["judged"]) >= 0
    drawn = [entry for stage in document["stages"] for entry in stage["candidates"]]
    expected = sum(len(r.spec.indices) for r in rows if r.spec.kind is CallKind.GENERATE)
    assert len(drawn) == expected
    for status in {entry["status"] for entry in drawn}:
        assert status in ("kept", "pruned", "duplicate", "failed", "open")
    if isinstance(decision, Answer):
        assert usage["kept"] == sum(entry["tokens"] for entry in drawn if entry["status"] == "kept") > 0
        assert "open" not in {entry["status"] for entry in drawn}
        assert document["answer"]["text"] == decision.text
    judged = {c["call"] for stage in document["stages"] for v in stage["verdicts"] for c in v["calls"]}
    assert judged == {row.spec.key for row in rows if row.spec.kind is not CallKind.GENERATE}


def test_each_fate_has_its_reason(lab: Any) -> None:
    kinds = {1: "same", 2: "same", 3: "truncated"}
    policy = Policy(candidates=5, retries=0, fan_out="apart")
    world = lab.world(
        kind=lambda s, i, a: kinds.get(i, "good") if s == "caption" else "good",
        fails=lambda spec: spec.key == "caption/r0/generate/4",
    )
    _, rows = world.run(policy)
    caption = build_trace(policy, lab.query, rows)["stages"][1]
    fates = [(entry["status"], entry["reason"]) for entry in caption["candidates"]]
    assert fates == [
        ("kept", None),
        ("pruned", "lost to candidate 0"),
        ("duplicate", "same text as candidate 1"),
        ("failed", "truncated"),
        ("failed", "crash: engine failed at caption/r0/generate/4"),
    ]
    assert caption["winner"] == 0
    assert caption["flaw"] == "lost_candidates"
    (verdict,) = caption["verdicts"]
    assert (verdict["pair"], verdict["winner"], verdict["how"], verdict["swap_agreed"]) == ([0, 1], 0, "agreed", True)
    assert [showing["order"] for showing in verdict["calls"][0]["showings"]] == [[0, 1], [1, 0]]


def test_a_superseded_draw_stands_beside_the_one_that_replaced_it(lab: Any) -> None:
    policy = Policy(candidates=1, retries=2)
    _, rows = lab.world(kind=lambda s, i, a: "early_end" if s == "summary" and a < 2 else "good").run(policy)
    summary = build_trace(policy, lab.query, rows)["stages"][0]
    assert [(e["attempt"], e["status"], e["reason"]) for e in summary["candidates"]] == [
        (0, "failed", "early_end"),
        (1, "failed", "early_end"),
        (2, "kept", None),
    ]


def test_a_decision_under_a_limit_is_shown_as_it_was_made(lab: Any) -> None:
    policy = Policy(candidates=2)
    _, rows = lab.world().run(policy)
    rows = [
        replace(r, status=CallStatus.CANCELLED, verdict=None) if "conclusion/r0/compare" in r.spec.key else r
        for r in rows
    ]
    decision = plan(policy, lab.query, rows, limit="deadline")
    document = build_trace(policy, lab.query, rows, decision)
    assert document["answer"]["degraded"] == "deadline"
    assert document["stages"][-1]["verdicts"][0]["winner"] is None
    assert document["stages"][-1]["verdicts"][0]["calls"][0]["status"] == "cancelled"


def test_a_failed_query_keeps_nothing_and_says_why(lab: Any) -> None:
    policy = Policy(candidates=2)
    _, rows = lab.world(fails=lambda spec: spec.stage == "caption").run(policy)
    document = build_trace(policy, lab.query, rows)
    assert document["answer"] is None
    assert document["error"]["stage"] == "caption"
    assert (document["error"]["code"], document["error"]["attempts"]) == ("crash", 3)


def test_tokens_of_a_call_that_failed_half_way_are_discarded(lab: Any) -> None:
    _, rows = lab.world().run(Policy(candidates=1))
    lost = Call(rows[0].spec, CallStatus.FAILED, usage=Usage(generated_tokens=9))
    assert (spent([lost], ()).kept, spent([lost], ()).discarded) == (0, 9)


def beginning(stage: str, round_: int, width: int, path: tuple[Ref, ...]) -> CallSpec:
    """The call that draws a stage, as a strategy that goes back to it would plan it."""
    key = keys.generate_keys(stage, round_, width).together
    return CallSpec(key, CallKind.GENERATE, stage, round_, path, tuple(range(width)))


def meeting(begun: CallSpec, first: int, second: int) -> CallSpec:
    """The comparison of two of its candidates."""
    pair = (Ref(begun.key, first), Ref(begun.key, second))
    key = keys.compare_key(begun.stage, begun.round, first, second)
    return CallSpec(key, CallKind.COMPARE, begun.stage, begun.round, begun.path, candidates=pair, swap=True)


def fates(document: dict[str, Any]) -> dict[tuple[str, int], list[str]]:
    return {
        (stage["stage"], stage["round"]): [entry["status"] for entry in stage["candidates"]]
        for stage in document["stages"]
    }


def went_back(lab: Any) -> tuple[Policy, list[Call], list[Call]]:
    """A search that came to REASONING and went back to CAPTION: the rows before, and those that followed."""
    policy, world = Policy(candidates=2, retries=0), lab.world()
    before = [row for row in world.run(policy)[1] if row.spec.stage != "conclusion"]
    summary = Ref(keys.generate_keys("summary", 0, 2).together, 0)
    caption = beginning("caption", 1, 3, (summary,))
    reasoning = beginning("reasoning", 1, 2, (summary, Ref(caption.key, 0)))
    conclusion = beginning("conclusion", 0, 2, (*reasoning.path, Ref(reasoning.key, 0)))
    after = (
        *(caption, meeting(caption, 0, 1), meeting(caption, 0, 2), reasoning, meeting(reasoning, 0, 1)),
        *(conclusion, meeting(conclusion, 0, 1)),
    )
    return policy, before, [world.outcome(spec) for spec in after]


def test_what_was_kept_on_a_way_that_was_left_is_retraced(lab: Any) -> None:
    policy, before, after = went_back(lab)
    path = (*after[5].spec.path, Ref(after[5].spec.key, 0))
    document = build_trace(policy, lab.query, [*before, *after], Answer("the answer", path))
    assert fates(document) == {
        ("summary", 0): ["kept", "pruned"],
        ("caption", 0): ["retraced", "pruned"],
        ("reasoning", 0): ["retraced", "pruned"],
        ("conclusion", 0): ["kept", "pruned"],
        ("caption", 1): ["kept", "pruned", "pruned"],
        ("reasoning", 1): ["kept", "pruned"],
    }
    left = [entry for stage in document["stages"] for entry in stage["candidates"] if entry["status"] == "retraced"]
    assert {entry["reason"] for entry in left} == {"kept until the search went back to caption"}
    again = next(stage for stage in document["stages"] if (stage["stage"], stage["round"]) == ("caption", 1))
    assert [verdict["pair"] for verdict in again["verdicts"]] == [[0, 1], [2, 0]]
    assert all(verdict["calls"] for stage in document["stages"] for verdict in stage["verdicts"])
    usage = document["usage"]
    assert usage["kept"] + usage["discarded"] + usage["judged"] == usage["total"]["generated_tokens"]


def test_a_way_is_left_the_moment_an_earlier_stage_begins_anew(lab: Any) -> None:
    policy, before, after = went_back(lab)
    running = [*before, replace(after[0], status=CallStatus.LEASED, candidates=())]
    found = fates(build_trace(policy, lab.query, running, Next()))
    assert found["summary", 0] == ["kept", "pruned"]
    assert found["caption", 0][0] == found["reasoning", 0][0] == "retraced"
    assert found["caption", 1] == ["open", "open", "open"]


def test_a_candidate_that_was_gone_back_to_is_kept(lab: Any) -> None:
    """A strategy may find that what it had at first was better."""
    policy, before, after = went_back(lab)
    first = next(row for row in before if row.spec.stage == "reasoning")
    path = (*first.spec.path, Ref(first.spec.key, 0))
    found = fates(build_trace(policy, lab.query, [*before, *after], Answer("the answer", path)))
    assert found["caption", 0] == found["reasoning", 0] == ["kept", "pruned"]
    assert [found[stage][0] for stage in (("caption", 1), ("reasoning", 1), ("conclusion", 0))] == ["retraced"] * 3
