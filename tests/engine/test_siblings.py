"""Siblings share a row until they part, each with the tokens it would have drawn alone."""

from __future__ import annotations

from typing import Any

from tests.engine.reference import GREEDY, ask, generate
from workers.engine.local import TransformersEngine
from workers.engine.protocol import Sampling


def test_siblings_that_draw_the_same_take_one_row(engine: TransformersEngine, pictures: dict[str, bytes]):
    before = engine.counters().values
    result = engine.generate(
        generate(ask("All alike", ["picture1"]), pictures, seeds=range(6), sampling=GREEDY)
    ).result()
    done = {name: count - before[name] for name, count in engine.counters().values.items()}
    assert len({candidate.token_ids for candidate in result.candidates}) == 1
    assert [candidate.seed for candidate in result.candidates] == list(range(6))
    assert result.usage.generated_tokens == 6 * result.candidates[0].tokens
    assert done["row_steps"] == 6 * (result.candidates[0].tokens - 1)
    assert done["row_steps"] - done["merged_steps"] == result.candidates[0].tokens - 1


def test_siblings_part_where_they_differ(engine: TransformersEngine, reference: Any, pictures: dict[str, bytes]):
    """A cool temperature: candidates go together for a while, then their own ways, each as if alone."""
    cool = Sampling(temperature=0.35, top_p=1.0, top_k=0, max_tokens=14)
    prompt = ask("How far together?", ["picture2"])
    before = engine.counters().values
    result = engine.generate(generate(prompt, pictures, seeds=range(8), sampling=cool)).result()
    done = {name: count - before[name] for name, count in engine.counters().values.items()}
    assert 0 < done["merged_steps"] < done["row_steps"]
    for candidate in result.candidates:
        assert candidate.token_ids == reference.sample(prompt, candidate.seed, cool)
