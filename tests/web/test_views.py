"""What the query page, the judge page and the comparison say, against outcomes made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.web import compare, thinking
from orchestrator.web.judging import Checks, Health, sample_lines
from reasoning.policy import Policy
from reasoning.records import (
    Call,
    CallError,
    CallKind,
    CallSpec,
    CallStatus,
    Candidate,
    Finish,
    Query,
    Ref,
    Showing,
    Usage,
    Verdict,
)
from reasoning.stages import STAGES
from reasoning.trace import build_trace
from storage.questions import Pair

QUERY = Query("q", "What?", ("a" * 64,))
DRAW = "summary/r0/generate/0-2"


def drawn(*texts: str, finish: Finish = Finish.STOP, status: CallStatus = CallStatus.DONE) -> Call:
    spec = CallSpec(
        f"summary/r0/generate/0-{len(texts) - 1}", CallKind.GENERATE, "summary", indices=tuple(range(len(texts)))
    )
    made = tuple(Candidate(n, text, 3, finish) for n, text in enumerate(texts))
    return Call(spec, status, made if status is CallStatus.DONE else (), usage=Usage(generated_tokens=3 * len(texts)))


def judged(first: int, second: int, *showings: tuple[tuple[int, int], tuple[float, float]], width: int = 3) -> Call:
    refs = tuple(Ref(f"summary/r0/generate/0-{width - 1}", index) for index in (first, second))
    spec = CallSpec(f"summary/r0/compare/{first}v{second}", CallKind.COMPARE, "summary", candidates=refs, swap=True)
    seen = tuple(Showing(order, "h", "ok", order[0 if p[0] > p[1] else 1], probabilities=p) for order, p in showings)
    return Call(spec, CallStatus.DONE, verdict=Verdict(seen))


def tagged(*texts: str) -> list[str]:
    return [f"<SUMMARY>{text}</SUMMARY>" for text in texts]


def stage(policy: dict[str, Any], *calls: Call) -> thinking.StageView:
    trace = build_trace(Policy(**policy), QUERY, calls)
    return thinking.view(trace).stages[0]


THREE = {"candidates": 3, "retries": 0}


def test_a_winner_is_explained_in_one_sentence():
    first = judged(0, 1, ((0, 1), (0.9, 0.1)), ((1, 0), (0.2, 0.8)))
    second = judged(0, 2, ((0, 2), (0.6, 0.4)), ((2, 0), (0.55, 0.45)))
    view = stage(THREE, drawn(*tagged("a", "b", "c")), first, second)
    assert view.winner == 0
    assert (
        view.why == "Candidate 0 beat 1 (both orders agree, margin 0.70), then beat 2 (orders disagree, margin 0.05)."
    )
    assert [card.status for card in view.cards] == ["kept", "pruned", "pruned"]
    assert view.doubts == 1
    assert [verdict.order_sensitive for verdict in view.verdicts] == [False, True]
    assert view.bracket is not None
    assert len(view.bracket.lines) == 4


def test_a_margin_of_nothing_is_a_close_call_though_both_orders_agree():
    close = judged(0, 1, ((0, 1), (0.51, 0.49)), ((1, 0), (0.48, 0.52)))
    view = stage({"candidates": 2, "retries": 0}, drawn(*tagged("a", "b")), close)
    assert view.verdicts[0].narrow
    assert view.doubts == 1


def test_the_kept_candidate_stands_on_top():
    calls = (
        judged(0, 1, ((0, 1), (0.1, 0.9)), ((1, 0), (0.9, 0.1))),
        judged(1, 2, ((1, 2), (0.2, 0.8)), ((2, 1), (0.9, 0.1))),
    )
    view = stage(THREE, drawn(*tagged("a", "b", "c")), *calls)
    assert [card.index for card in view.cards] == [2, 0, 1]
    assert view.cards[0].wins == 1


def test_equal_texts_are_not_judged():
    view = stage(THREE, drawn(*tagged("same", "same", "same")))
    assert view.why == "Candidate 0 stands for all: 2 more had the same text, so nothing was judged."
    assert [card.status for card in view.cards] == ["kept", "duplicate", "duplicate"]
    assert view.bracket is None


def test_the_tree_tells_duplicates_in_one_line_and_the_way_on_last():
    calls = (
        drawn(*tagged("a", "b", "b", "b")),
        judged(0, 1, ((0, 1), (0.9, 0.1)), ((1, 0), (0.2, 0.8)), width=4),
    )
    trace = build_trace(Policy(candidates=4, retries=0), QUERY, calls)
    (root,) = thinking.view(trace).tree
    told = [([card.index for card in leaf.cards], leaf.card.status, leaf.ending) for leaf in root.ended]
    assert told == [([1], "pruned", "lost to 0 by 0.70"), ([2, 3], "duplicate", "same text as candidate 1")]
    (kept,) = root.onward
    assert (kept.card.index, kept.ending, [branch.stage.name for branch in kept.branches]) == (0, "", ["caption"])


def test_a_stage_whose_parent_is_gone_is_a_root_with_a_note():
    spec = CallSpec("caption/r0/generate/0", CallKind.GENERATE, "caption", path=(Ref("gone", 0),), indices=(0,))
    text = "<CAPTION>what is seen</CAPTION>"
    call = Call(spec, CallStatus.DONE, (Candidate(0, text, 3, Finish.STOP),))
    trace = build_trace(Policy(candidates=1, retries=0), QUERY, [call])
    assert ("caption", True) in [(root.stage.name, root.orphan) for root in thinking.view(trace).tree]


def test_a_stage_that_runs_says_so():
    waiting = drawn("", "", "", status=CallStatus.QUEUED)
    view = stage(THREE, waiting)
    assert view.winner is None
    assert view.why == "No candidate is chosen yet."
    assert {card.status for card in view.cards} == {"open"}


def test_a_stage_of_failures_says_why():
    failed = Call(drawn("a", "b", "c").spec, CallStatus.FAILED, error=CallError("crash", "it broke"))
    view = stage(THREE, failed)
    assert {card.status for card in view.cards} == {"failed"}
    assert view.cards[0].reason == "crash: it broke"
    assert view.why == "No candidate could be used."
    assert (view.drawn, view.lost) == (0, 3)
    cut = stage(THREE, drawn("<SUMMARY>abc", "<SUMMARY>", "", finish=Finish.LENGTH))
    assert [card.finish for card in cut.cards] == ["length"] * 3


def test_a_judge_that_failed_or_mumbled_is_no_tie():
    crash = Call(judged(0, 1).spec, CallStatus.FAILED, error=CallError("crash", "it broke"))
    view = stage({"candidates": 2, "retries": 0}, drawn(*tagged("a", "b")), crash)
    assert view.verdicts[0].ground == "the call of the judge failed; decided by the seed"
    assert "(no verdict, by seed)" in view.why
    mumbled = Verdict((Showing((0, 1), "h", "unparseable", None, words="Both have their merits."),))
    call = Call(judged(0, 1).spec, CallStatus.DONE, verdict=mumbled)
    words = {"candidates": 2, "retries": 0, "judge": "words", "judge_retries": 0, "swap_check": False}
    view = stage(words, drawn(*tagged("a", "b")), call)
    assert view.verdicts[0].ground == "no reply could be read; decided by the seed"
    tied = judged(0, 1, ((0, 1), (0.5, 0.5)), ((1, 0), (0.5, 0.5)))
    view = stage({"candidates": 2, "retries": 0}, drawn(*tagged("a", "b")), tied)
    assert view.verdicts[0].ground == "a tie that nothing settles; decided by the seed"


def test_a_whole_answer_is_shown_with_its_stages():
    text = "".join(f"<{stage.name}>the {stage.value}</{stage.name}>" for stage in STAGES)
    spec = CallSpec("whole/r0/generate/0", CallKind.GENERATE, "whole", indices=(0,))
    call = Call(spec, CallStatus.DONE, (Candidate(0, text, 9, Finish.STOP),))
    thought = thinking.view(build_trace(Policy(strategy="single"), QUERY, [call]))
    assert [(part.name, part.text, part.anchor) for part in thought.sections] == [
        (name, f"the {name}", "whole-0") for name in ("summary", "caption", "reasoning")
    ]
    assert thought.stages[0].cards[0].text == text


def test_one_candidate_needs_no_judge():
    view = stage(
        {"candidates": 1, "retries": 0},
        Call(
            CallSpec("summary/r0/generate/0", CallKind.GENERATE, "summary", indices=(0,)),
            CallStatus.DONE,
            (Candidate(0, tagged("a")[0], 3, Finish.STOP),),
        ),
    )
    assert view.why == "One candidate."


@pytest.mark.parametrize("width", [1, 2, 8, 64])
def test_any_width_can_be_drawn(width: int):
    texts = tagged(*(f"text {n}" for n in range(width)))
    call = (
        drawn(*texts)
        if width > 1
        else Call(
            CallSpec("summary/r0/generate/0", CallKind.GENERATE, "summary", indices=(0,)),
            CallStatus.DONE,
            (Candidate(0, texts[0], 3, Finish.STOP),),
        )
    )
    view = stage({"candidates": width, "retries": 0}, call)
    assert len(view.cards) == width
    assert (view.bracket is None) == (width in (1, 64))


def test_stages_come_in_their_order():
    trace = build_trace(Policy(**THREE), QUERY, [drawn(*tagged("same", "same", "same"))])
    names = [each.name for each in thinking.view(trace).stages]
    assert names == [stage.value for stage in STAGES][: len(names)]


def showing(
    order: tuple[int, int], p: tuple[float, float] | None, choice: int | None, parse: str = "ok"
) -> dict[str, Any]:
    return {"order": list(order), "choice": choice, "parse": parse, "probabilities": list(p or ())}


def test_judge_health_counts_what_it_should():
    health = Health()
    health.add("done", [showing((0, 1), (0.9, 0.1), 0), showing((1, 0), (0.2, 0.8), 0)])
    health.add("done", [showing((0, 1), (0.6, 0.4), 0), showing((1, 0), (0.6, 0.4), 1)])
    health.add("done", [showing((0, 1), None, None, "unparseable"), showing((1, 0), None, 1)])
    health.add("failed", [])
    assert (health.comparisons, health.failed, health.unread) == (3, 1, 1)
    assert (health.swapped, health.disagreed) == (2, 1)
    assert (health.read, health.first) == (5, 4)
    assert health.margins == pytest.approx([0.7, 0.0])
    assert health.bins[0] == health.bins[7] == 1


def test_pre_checks_are_counted_apart():
    checks = Checks()
    for choice, parse in ((0, "ok"), (None, "ok"), (None, "unparseable")):
        checks.add("done", [{"order": [0], "choice": choice, "parse": parse}])
    checks.add("failed", [])
    assert (checks.done, checks.incorrect, checks.unread, checks.failed) == (3, 1, 1, 1)


def test_a_sample_is_spread_over_the_lines():
    assert sample_lines(3) == [1, 2, 3]
    lines = sample_lines(1_000_000)
    assert len(set(lines)) == 200
    assert (lines[0], lines[-1]) == (1, 1_000_000)


@pytest.mark.parametrize(
    ("a", "b", "known", "kind"),
    [
        ("A", "B", "B", "gained"),
        ("B", "A", "B", "lost"),
        ("A", "C", "B", "flipped"),
        ("A", " a", "B", "same"),
        ("x", "y", None, "flipped"),
        (None, "y", None, "one_sided"),
        (None, None, "B", "same"),
    ],
)
def test_a_pair_of_answers_is_named(a: str | None, b: str | None, known: str | None, kind: str):
    assert compare.kind_of(Pair(1, "q", "which?", known, 1, "done", a, 2, "done", b)) == kind
