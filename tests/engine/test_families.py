"""Decoder-only models: the engine says what `generate` says, and pictures are prefix like any other token."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers

from reasoning.errors import Transient
from tests.engine import families
from tests.engine.families import Family
from tests.engine.reference import GREEDY, WARM, Reference, ask, choose, generate
from workers.engine.adapters import decoder
from workers.engine.adapters.choose import adapter_for
from workers.engine.encode import Encoder
from workers.engine.local import DeviceOptions, TransformersEngine, limits_of
from workers.engine.loop import Loop
from workers.engine.protocol import Counters

PROMPTS = [
    ask("How many?"),
    ask("What is it?", ["picture0"]),
    ask("Left or right of the tree?", ["picture1"]),
    ask("Compare.", ["picture2", "picture3"]),
    ask("Go on", ["picture3"], prefix="<SUMMARY>I look</SUMMARY>"),
]


class Bare:
    """The loop in its thread, for a model that comes from no folder."""

    def __init__(self, model: Any, processor: Any) -> None:
        adapter = adapter_for(model, processor)
        assert adapter
        options = DeviceOptions(device="cpu", memory_mb=128)
        ends = frozenset({model.generation_config.eos_token_id})
        self._loop = Loop(adapter, Encoder(processor), ends, limits_of(options, "cpu"))
        self._thread = threading.Thread(target=self._loop.run)
        self._thread.start()
        self.generate = self.choose = self._loop.submit

    def counters(self) -> Counters:
        return Counters(values=self._loop.counts())

    def close(self) -> None:
        self._loop.close()
        self._thread.join()


@pytest.fixture(scope="module", params=families.NAMES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return families.make(request.param, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def plain(family: Family, pictures: dict[str, bytes]) -> Reference:
    return Reference(families.fresh(family), pictures)


@pytest.fixture(scope="module")
def engine(family: Family) -> Iterator[TransformersEngine | Bare]:
    options = DeviceOptions(device="cpu", memory_mb=128)
    engine = TransformersEngine(str(family), options) if isinstance(family, Path) else Bare(*family())
    yield engine
    engine.close()


@pytest.mark.parametrize(("window", "fits"), [(8, False), (None, True)])
def test_a_text_model_that_sees_a_window_alone_has_no_adapter(window: int | None, fits: bool):
    text = transformers.MistralConfig(
        vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=window,
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=1)
    assert decoder.fits(SimpleNamespace(config=config)) is fits


def test_a_family_without_adapter_runs_plainly(
    tmp_path: Path, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decoder, "FAMILIES", frozenset())
    folder = families.llava(tmp_path)
    plain = Reference(folder, pictures)
    engine = TransformersEngine(str(folder), DeviceOptions(device="cpu"))
    path: tuple[int, ...] = ()
    for prompt in PROMPTS[:2] * 2:
        result = engine.generate(generate(prompt, pictures, prefix_ids=path, seeds=(1, 2), sampling=WARM)).result()
        for candidate in result.candidates:
            assert candidate.token_ids == plain.sample(prompt, candidate.seed, WARM, path)
        path = () if path else result.candidates[0].token_ids
    chosen = engine.choose(choose(PROMPTS[1], pictures)).result()
    assert sum(chosen.probabilities) == pytest.approx(1)
    bad = engine.generate(generate(ask("?", ["broken"]), {"broken": b"x"})).exception(timeout=20)
    assert getattr(bad, "code", "") == "bad_image"
    assert engine.counters().values["requests"] == 5
    flag = threading.Event()
    endless = replace(WARM, max_tokens=500)
    long = engine.generate(generate(ask("?"), pictures, stop="never", sampling=endless, cancelled=flag.is_set))
    late = engine.generate(generate(ask("?"), pictures, deadline=time.monotonic() + 0.05))
    assert getattr(late.exception(timeout=20), "code", "") == "deadline"
    assert not long.done()  # it was told while the other had its turn
    flag.set()
    engine.close()
    with pytest.raises(Transient):  # one that waited for a slot comes in behind the close
        engine._loop.submit(generate(ask("?"), pictures)).result(timeout=20)


def test_greedy_text_is_that_of_generate(engine: TransformersEngine, plain: Reference, pictures: dict[str, bytes]):
    futures = [engine.generate(generate(prompt, pictures, seeds=(1, 2))) for prompt in PROMPTS]
    for prompt, future in zip(PROMPTS, futures, strict=True):
        wanted = plain.greedy(prompt, GREEDY.max_tokens)
        assert [candidate.token_ids for candidate in future.result().candidates] == [wanted, wanted], prompt


def test_label_probabilities_are_those_of_the_logits(
    engine: TransformersEngine | Bare, plain: Reference, pictures: dict[str, bytes]
):
    for prompt in PROMPTS:
        found = engine.choose(choose(prompt, pictures)).result().probabilities
        assert found == pytest.approx(plain.shares(prompt, ["1", "2"]), abs=1e-4)


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
