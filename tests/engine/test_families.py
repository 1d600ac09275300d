"""Decoder-only models: the engine says what `generate` says, and pictures are prefix like any other token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine import families
from tests.engine.reference import GREEDY, WARM, Reference, ask, generate
from workers.engine.local import DeviceOptions, TransformersEngine

PROMPTS = [
    ask("How many?"),
    ask("What is it?", ["picture0"]),
    ask("Left or right of the tree?", ["picture1"]),
    ask("Compare.", ["picture2", "picture3"]),
    ask("Go on", ["picture3"], prefix="<SUMMARY>I look</SUMMARY>"),
]


@pytest.fixture(scope="module", params=[families.llava, families.idefics])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make: Callable[[Path], Path] = request.param
    return make(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def plain(family: Path, pictures: dict[str, bytes]) -> Reference:
    return Reference(family, pictures)


@pytest.fixture(scope="module")
def engine(family: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(str(family), DeviceOptions(device="cpu", memory_mb=128))
    yield engine
    engine.close()


def test_greedy_text_is_that_of_generate(engine: TransformersEngine, plain: Reference, pictures: dict[str, bytes]):
    futures = [engine.generate(generate(prompt, pictures, seeds=(1, 2))) for prompt in PROMPTS]
    for prompt, future in zip(PROMPTS, futures, strict=True):
        wanted = plain.greedy(prompt, GREEDY.max_tokens)
        assert [candidate.token_ids for candidate in future.result().candidates] == [wanted, wanted], prompt


def test_stages_go_on_without_seeing_the_image_again(
    engine: TransformersEngine, plain: Reference, pictures: dict[str, bytes]
):
    prompt = ask("Step by step", ["picture2"])
    path: tuple[int, ...] = ()
    for _ in range(2):
        request = generate(prompt, pictures, group="path", prefix_ids=path, seeds=(1, 2, 3), sampling=WARM)
        result = engine.generate(request).result()
        for candidate in result.candidates[:2]:
            assert candidate.token_ids == plain.sample(prompt, candidate.seed, WARM, path)
        path += result.candidates[1].token_ids
    assert result.usage.prompt_tokens - result.usage.cached_tokens == 1
    before = engine.counters().values["vision_calls"]
    judged = ask("Step by step, another way", ["picture2"])
    usage = engine.generate(generate(judged, pictures, group="path")).result().usage
    assert engine.counters().values["vision_calls"] == before
    assert usage.cached_tokens > 10
