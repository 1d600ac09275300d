"""The scripted engine: deterministic, quick, with faults on demand."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.errors import BadInput, ModelError, Transient
from reasoning.prompts import LABELS, check_prompt, compare_prompt, policy_prompt
from reasoning.records import Finish, Query
from reasoning.stages import STAGES, Stage
from tests.engine.reference import WARM, ask, choose, generate
from workers.engine.config import build, parse_settings
from workers.engine.protocol import Sampling
from workers.engine.registry import open_engine
from workers.engine.scripted import Script, ScriptedEngine

QUERY = Query("q", "What colour is the cube?", (), ("red", "blue"))
ROOMY = Sampling(temperature=0.6, top_p=0.9, top_k=50, max_tokens=500)


def script(**settings: object) -> ScriptedEngine:
    return ScriptedEngine(Script(**settings))  # type: ignore[arg-type]


@given(seed=st.integers(0, 2**63 - 1), done=st.integers(0, 3))
def test_each_stage_is_written_once_and_closed(seed: int, done: int):
    prefix = "".join(f"<{stage.tag}>x</{stage.tag}>" for stage in STAGES[:done])
    stage = STAGES[done]
    request = generate(
        policy_prompt(QUERY, "standard", prefix), {}, seeds=(seed,), stop=stage.close_tag, sampling=ROOMY
    )
    text = script().generate(request).result().candidates[0].text
    assert text.startswith(stage.open_tag)
    assert text.endswith(stage.close_tag)
    assert text.count("<") == 2


def test_a_whole_answer_has_all_four_stages_and_names_a_choice():
    request = generate(policy_prompt(QUERY, "tuned", ""), {}, stop=Stage.CONCLUSION.close_tag, sampling=ROOMY)
    text = script().generate(request).result().candidates[0].text
    assert [text.index(stage.open_tag) for stage in STAGES] == sorted(text.index(stage.open_tag) for stage in STAGES)
    assert text.endswith(("<CONCLUSION>A</CONCLUSION>", "<CONCLUSION>B</CONCLUSION>"))


def test_duplicates_do_occur():
    request = generate(policy_prompt(QUERY, "standard", ""), {}, seeds=tuple(range(40)), sampling=ROOMY)
    texts = [candidate.text for candidate in script().generate(request).result().candidates]
    assert 1 < len(set(texts)) < 40
    same = script(duplicates=1.0).generate(request).result().candidates
    assert len({candidate.text for candidate in same}) == 1


@given(first=st.text(max_size=20), second=st.text(max_size=20), style=st.sampled_from(["standard", "compact"]))
def test_a_verdict_follows_the_texts_not_their_order(first: str, second: str, style: str):
    both = [
        compare_prompt(QUERY, style, "labels", Stage.SUMMARY, {}, shown)  # type: ignore[arg-type]
        for shown in ((first, second), (second, first))
    ]
    there, back = (script().choose(choose(prompt, {}, LABELS)).result().probabilities for prompt in both)
    assert there == pytest.approx(back[::-1])


def test_words_agree_with_labels():
    prompt = compare_prompt(QUERY, "standard", "words", Stage.SUMMARY, {}, ("good", "bad"))
    words = script().generate(generate(prompt, {}, stop="", sampling=ROOMY)).result().candidates[0].text
    label = 1 + (script().choose(choose(prompt, {}, LABELS)).result().probabilities[1] > 0.5)
    assert words.endswith(f"I choose response {label}.")
    broken = script(off_format=1.0).generate(generate(prompt, {}, stop="", sampling=ROOMY)).result()
    assert "I choose response" not in broken.candidates[0].text
    check = script().generate(generate(check_prompt(QUERY, "c", "r"), {}, stop="", sampling=WARM)).result()
    assert check.candidates[0].text in ("correct", "incorrect")


@pytest.mark.parametrize(
    ("fault", "finish"),
    [("truncation", Finish.LENGTH), ("early_end", Finish.EARLY_END), ("missing_end", Finish.EARLY_END)],
)
def test_faults_of_a_candidate(fault: str, finish: Finish):
    request = generate(policy_prompt(QUERY, "standard", ""), {}, seeds=tuple(range(40)), sampling=ROOMY)
    candidates = script(**{fault: 0.5}).generate(request).result().candidates
    struck = [candidate for candidate in candidates if candidate.finish is finish]
    assert 5 < len(struck) < 35
    assert all("</SUMMARY>" not in candidate.text for candidate in struck)


def test_faults_of_a_request():
    failing = [
        script(**{fault: 1.0}).generate(generate(ask("q"), {})).exception(timeout=5)
        for fault in ("crash", "transient", "timeout")
    ]
    assert [getattr(error, "code", "transient") for error in failing] == ["crash", "transient", "deadline"]
    assert isinstance(failing[1], Transient)
    died: list[bool] = []
    ScriptedEngine(Script(kill=1.0), die=lambda: died.append(True)).generate(generate(ask("q"), {})).result()
    assert died == [True]


def test_a_fault_that_strikes_once_spares_the_second_start():
    engine = script(crash=1.0, times=1)
    request = generate(ask("q"), {}, call_id="a")
    assert isinstance(engine.generate(request).exception(), ModelError)
    assert engine.generate(request).result().candidates


def test_markers_in_the_question_work_only_when_switched_on():
    request = generate(ask("What? #crash"), {})
    assert script().generate(request).result().candidates
    assert isinstance(script(markers=True).generate(request).exception(), ModelError)


def test_durations_come_from_a_function():
    engine = ScriptedEngine(Script(), seconds=lambda request: 0.05 if request.call_id == "slow" else 0.0)
    started = time.monotonic()
    slow = engine.generate(generate(ask("q"), {}, call_id="slow"))
    assert engine.generate(generate(ask("q"), {}, call_id="quick")).done()
    assert slow.result(timeout=5).usage.seconds == 0.05
    assert time.monotonic() - started >= 0.05
    engine.close()


def test_a_tie_is_even():
    assert script(tie=1.0).choose(choose(ask("q"), {}, LABELS)).result().probabilities == (0.5, 0.5)
    error = script(labels=False).choose(choose(ask("q"), {}, LABELS)).exception()
    assert isinstance(error, ModelError)
    assert error.code == "no_labels"


def test_settings_come_as_pairs_or_json():
    assert parse_settings(" crash=0.5, slots=3,labels=no ") == {"crash": "0.5", "slots": "3", "labels": "no"}
    assert build(Script, parse_settings("crash=0.5,slots=3,labels=no")) == Script(crash=0.5, slots=3, labels=False)
    assert build(Script, parse_settings('{"crash": 0.5, "labels": false}')) == Script(crash=0.5, labels=False)
    assert open_engine("scripted:slots=3").info.slots == 3
    assert open_engine("scripted", {"slots": 5}).info.slots == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [("crsh=1", 'Did you mean "crash"'), ("crash=often", "must be a float"), ("crash", "has no value"), ("{", "JSON")],
)
def test_unreadable_settings_are_named(text: str, words: str):
    with pytest.raises(BadInput, match=words):
        open_engine(f"scripted:{text}")


def test_it_is_quick():
    engine, count = script(), 500
    requests = [
        generate(policy_prompt(QUERY, "standard", ""), {}, seeds=(k, k + 1), call_id=str(k)) for k in range(count)
    ]
    started = time.process_time()
    for request in requests:
        engine.generate(request).result()
    assert count / (time.process_time() - started) > 1000
