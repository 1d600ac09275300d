"""Several batches side by side over one set of weights, and siblings that share a row until they part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoning.errors import ModelError, Transient
from tests.engine.reference import GREEDY, WARM, ask, choose, generate
from workers.engine.adapters.mllama import MllamaAdapter
from workers.engine.local import DeviceOptions, TransformersEngine
from workers.engine.protocol import Sampling


@pytest.fixture(scope="module")
def side_by_side(mllama: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(str(mllama), DeviceOptions(device="cpu", memory_mb=192, loops=3))
    yield engine
    engine.close()


def work(pictures: dict[str, bytes]) -> list[Any]:
    images = [*([name] for name in pictures), []]
    return [
        generate(ask(f"{k} of many?", images[k % len(images)]), pictures, seeds=(k, k + 1, k + 2), sampling=WARM)
        for k in range(24)
    ]


def test_side_by_side_says_what_one_batch_says(
    side_by_side: TransformersEngine, engine: TransformersEngine, pictures: dict[str, bytes]
):
    requests = work(pictures)
    before = side_by_side.counters().values
    many = [side_by_side.generate(request) for request in requests]
    judged = [side_by_side.choose(choose(ask(f"{k}?", [name]), pictures)) for k, name in enumerate(pictures)]
    one = [engine.generate(request) for request in requests]
    assert [future.result().candidates for future in many] == [future.result().candidates for future in one]
    done = {name: count - before[name] for name, count in side_by_side.counters().values.items()}
    assert done["requests"] == len(many) + len(judged)
    assert done["vision_calls"] == len(pictures)
    usages = [future.result().usage for future in [*many, *judged]]
    assert done["prompt_tokens"] == sum(usage.prompt_tokens for usage in usages)
    assert done["generated_tokens"] == sum(usage.generated_tokens for usage in usages)
    assert done["vision_calls"] == sum(usage.vision_calls for usage in usages)


def test_a_crash_in_one_batch_spares_the_others(
    side_by_side: TransformersEngine, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    forward, poison = MllamaAdapter.forward, 254

    def failing(self: MllamaAdapter, packed: Any) -> torch.Tensor:
        if (packed.ids == poison).sum() >= 3:
            raise ValueError("kernel launch failed")
        return forward(self, packed)

    monkeypatch.setattr(MllamaAdapter, "forward", failing)
    before = side_by_side.counters().values["crashes"]
    bad = side_by_side.generate(generate(ask("bad"), pictures, group="bad", prefix_ids=(poison,) * 3))
    error = bad.exception(timeout=60)
    assert isinstance(error, ModelError)
    assert error.code == "crash"
    after = [side_by_side.generate(request) for request in work(pictures)]
    assert all(future.result(timeout=60).candidates for future in after)
    assert side_by_side.counters().values["crashes"] == before + 1


def test_cancelled_queries_leave_all_batches_and_closing_hands_back_the_rest(mllama: Path, pictures: dict[str, bytes]):
    engine = TransformersEngine(str(mllama), DeviceOptions(device="cpu", memory_mb=192, loops=3))
    long = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=350)
    gone: set[str] = set()
    futures = {
        name: engine.generate(
            generate(
                ask("Go on", [name]), pictures, group=name, seeds=range(8), sampling=long,
                cancelled=lambda name=name: name in gone,
            )
        )
        for name in pictures
    }  # fmt: skip
    gone.update(list(pictures)[:3])
    for name in gone:
        error = futures[name].exception(timeout=60)
        assert isinstance(error, ModelError)
        assert error.code == "cancelled"
    engine.close()
    for future in futures.values():
        error = future.exception(timeout=10)
        assert error is None or isinstance(error, ModelError | Transient)
    assert engine.counters().values["rows"] == 0


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
