"""The tree built on read says what happened to each candidate, and its tokens add up."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reasoning.plan import Answer, plan
from reasoning.policy import Policy
from reasoning.records import Call, CallKind, CallStatus, Usage
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
