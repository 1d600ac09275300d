"""Verdict records: what a judge said, with everything needed to replay it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reasoning.policy import Policy
from reasoning.records import Call, CallKind, CallSpec, CallStatus, Candidate, Finish, Query, Ref, Verdict
from reasoning.render import render_check, render_compare
from storage.calls import Asker, Claimed
from storage.workload import Work
from workers.asks import Asked, Outcome, Terms
from workers.engine.protocol import never
from workers.engine.scripted import Script, ScriptedEngine
from workers.generate import ask_generate
from workers.judge import ask_check, ask_compare

QUERY = Query("q1", "How many?", ())
PATH = (Ref("summary/r0/generate/0", 0), Ref("caption/r0/generate/0", 0))
PAIR = (Ref("reasoning/r0/generate/0-1", 0), Ref("reasoning/r0/generate/0-1", 1))
COMPARE = CallSpec("reasoning/r0/compare/0v1", CallKind.COMPARE, "reasoning", path=PATH, candidates=PAIR, swap=True)
CHECK = CallSpec("reasoning/r0/check/0v1/1", CallKind.CHECK, "reasoning", path=PATH, candidates=PAIR[1:])


def sibling(key: str, stage: str, *texts: str) -> Call:
    candidates = tuple(
        Candidate(place, f"<{stage.upper()}>{text}</{stage.upper()}>", 3, Finish.STOP, (place + 1,))
        for place, text in enumerate(texts)
    )
    return Call(CallSpec(key, CallKind.GENERATE, stage), CallStatus.DONE, candidates)


SIBLINGS = {
    call.spec.key: call
    for call in (
        sibling("summary/r0/generate/0", "summary", "a plan"),
        sibling("caption/r0/generate/0", "caption", "two red cubes"),
        sibling("reasoning/r0/generate/0-1", "reasoning", "I count two.", "I count three."),
    )
}


def work(spec: CallSpec, **policy: Any) -> Work:
    claimed = Claimed(1, 1, "job_1", "scripted", spec, 1, 0, Asker("q1", {}, None, "", "batch"))
    return Work(claimed, Policy(**policy), QUERY, "batch", None, SIBLINGS)


def no_image(content_hash: str) -> bytes:
    raise KeyError(content_hash)


TERMS = Terms(no_image, never, None)


def outcome(asked: Asked) -> Outcome:
    return asked.read([future.result(10) for future in asked.futures])


def verdict(asked: Asked) -> Verdict:
    found = outcome(asked).verdict
    assert found is not None
    assert Verdict.from_json(found.to_json()) == found
    return found


def test_labels_are_read_in_both_orders() -> None:
    item = work(COMPARE, judge="labels")
    shown = verdict(ask_compare(ScriptedEngine(), item, TERMS)).showings
    judgings = render_compare(item.policy, QUERY, COMPARE, SIBLINGS, "standard")
    assert [showing.order for showing in shown] == [(0, 1), (1, 0)]
    assert [showing.prompt_hash for showing in shown] == [judging.prompt.digest for judging in judgings]
    assert shown[0].probabilities == pytest.approx(tuple(reversed(shown[1].probabilities)))
    assert shown[0].choice == shown[1].choice
    assert {showing.parse for showing in shown} == {"ok"}


def test_one_order_is_asked_where_one_is_wanted() -> None:
    item = work(replace(COMPARE, swap=False), judge="labels")
    assert len(verdict(ask_compare(ScriptedEngine(), item, TERMS)).showings) == 1


@pytest.mark.parametrize(
    ("script", "policy"),
    [
        (Script(), {"judge": "words"}),
        (Script(), {"judge": "labels", "mode": "published"}),
        (Script(labels=False), {"judge": "labels"}),
    ],
    ids=["words by policy", "published", "engine without labels"],
)
def test_words_are_kept_and_read(script: Script, policy: dict[str, Any]) -> None:
    asked = ask_compare(ScriptedEngine(script), work(COMPARE, **policy), TERMS)
    found = outcome(asked)
    assert found.verdict is not None
    assert found.usage.generated_tokens == sum(len(s.words.split(" ")) for s in found.verdict.showings)
    for showing in found.verdict.showings:
        assert (showing.parse, showing.probabilities) == ("ok", ())
        assert "I choose response" in showing.words
        assert showing.choice in showing.order


def test_an_unreadable_reply_is_recorded_and_chooses_nobody() -> None:
    asked = ask_compare(ScriptedEngine(Script(off_format=1.0)), work(COMPARE, judge="words"), TERMS)
    for showing in verdict(asked).showings:
        assert (showing.parse, showing.choice) == ("unparseable", None)
        assert showing.words


def test_a_check_shows_one_reasoning_without_the_image() -> None:
    item = work(CHECK, mode="published")
    (showing,) = verdict(ask_check(ScriptedEngine(), item, TERMS)).showings
    assert showing.prompt_hash == render_check(item.policy, QUERY, CHECK, SIBLINGS).prompt.digest
    assert (showing.order, showing.parse) == ((1,), "ok")
    assert showing.choice == (None if "incorrect" in showing.words else 1)


def test_asking_again_gives_the_same_verdict() -> None:
    first, second = (verdict(ask_compare(ScriptedEngine(), work(COMPARE, judge="words"), TERMS)) for _ in range(2))
    assert first == second


def test_candidates_continue_the_kept_path_by_text_and_ids() -> None:
    spec = CallSpec("reasoning/r0/generate/0-1", CallKind.GENERATE, "reasoning", path=PATH, indices=(0, 1))
    seen: list[Any] = []

    class Noting(ScriptedEngine):
        def generate(self, request: Any) -> Any:
            seen.append(request)
            return super().generate(request)

    found = outcome(ask_generate(Noting(), work(spec, temperature=0.3, top_k=7), TERMS))
    (request,) = seen
    assert request.prompt.prefix == "<SUMMARY>a plan</SUMMARY><CAPTION>two red cubes</CAPTION>"
    assert request.prefix_ids == (1, 1)
    assert (request.stop, request.indices, len(set(request.seeds))) == ("</REASONING>", (0, 1), 2)
    assert (request.sampling.temperature, request.sampling.top_k) == (0.3, 7)
    assert request.call_id == "q1/reasoning/r0/generate/0-1"
    assert [candidate.seed for candidate in found.candidates] == list(request.seeds)
