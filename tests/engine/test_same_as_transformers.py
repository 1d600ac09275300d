"""The engine says what transformers says: greedy token by token, label probabilities, samples alone or in a crowd."""

from __future__ import annotations

import pytest

from tests.engine.reference import GREEDY, WARM, Reference, ask, choose, generate
from workers.engine.local import TransformersEngine

PROMPTS = [
    ask("How many?"),
    ask("What is it?", ["picture0"]),
    ask("Left or right of the tree, seen from the door?", ["picture1"], system="Answer in short words."),
    ask("Compare.", ["picture2", "picture3"]),
    ask("Which of these is the largest one, and why?" * 3, ["picture4"]),
    ask("Three at once", ["picture1", "picture0", "picture4"], system="Look."),
    ask("Go on", ["picture3"], prefix="<SUMMARY>I look</SUMMARY>"),
]


def test_greedy_text_is_that_of_generate(engine: TransformersEngine, reference: Reference, pictures: dict[str, bytes]):
    """Mixed lengths, none to three images, one to four tiles, all in one batch."""
    futures = [engine.generate(generate(prompt, pictures, seeds=(1, 2))) for prompt in PROMPTS]
    for prompt, future in zip(PROMPTS, futures, strict=True):
        candidates = future.result().candidates
        wanted = reference.greedy(prompt, GREEDY.max_tokens)
        assert [candidate.token_ids for candidate in candidates] == [wanted, wanted], prompt


def test_the_next_stage_goes_on_from_the_kept_candidate(
    engine: TransformersEngine, reference: Reference, pictures: dict[str, bytes]
):
    prompt = ask("Go on and on", ["picture2"])
    path: tuple[int, ...] = ()
    before = engine.counters().values["twig_hits"]
    for _ in range(3):
        result = engine.generate(
            generate(prompt, pictures, group="path", prefix_ids=path, seeds=(1, 2, 3), sampling=WARM)
        ).result()
        for candidate in result.candidates:
            assert candidate.token_ids == reference.sample(prompt, candidate.seed, WARM, path)
        path += result.candidates[1].token_ids
    assert engine.counters().values["twig_hits"] - before == 2
    assert result.usage.vision_calls == 0
    assert result.usage.prompt_tokens - result.usage.cached_tokens == 1


def test_label_probabilities_are_those_of_the_logits(
    engine: TransformersEngine, reference: Reference, pictures: dict[str, bytes]
):
    for prompt in PROMPTS:
        found = engine.choose(choose(prompt, pictures)).result().probabilities
        assert found == pytest.approx(reference.shares(prompt, ["1", "2"]), abs=1e-4)
        assert sum(found) == pytest.approx(1)


def test_a_sample_is_the_same_alone_and_in_a_crowd(
    engine: TransformersEngine, reference: Reference, pictures: dict[str, bytes]
):
    crowd = [
        engine.generate(generate(prompt, pictures, seeds=range(place, place + 5), sampling=WARM))
        for place, prompt in enumerate(PROMPTS)
    ]
    for place, (prompt, future) in enumerate(zip(PROMPTS, crowd, strict=True)):
        together = [candidate.token_ids for candidate in future.result().candidates]
        alone = engine.generate(generate(prompt, pictures, seeds=(place + 3,), sampling=WARM)).result()
        assert together[3] == alone.candidates[0].token_ids == reference.sample(prompt, place + 3, WARM)
        assert len(set(together)) > 1


def test_an_image_passes_the_vision_tower_once(engine: TransformersEngine, pictures: dict[str, bytes]):
    fresh = {"only-here": pictures["picture4"]}
    before = engine.counters().values["vision_calls"]
    requests = [generate(ask(f"{k}?", ["only-here"]), fresh, group=str(k), seeds=(1, 2)) for k in range(6)]
    futures = [engine.generate(request) for request in requests]
    futures += [engine.choose(choose(ask(f"judge {k}", ["only-here"]), fresh)) for k in range(3)]
    used = [future.result().usage.vision_calls for future in futures]
    assert sum(used) == engine.counters().values["vision_calls"] - before == 1
