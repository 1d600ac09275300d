"""Weights in four bits: the engine says what `generate` says of the same quantised weights."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reasoning.errors import BadInput
from tests.engine.reference import GREEDY, Reference, ask, generate
from workers.engine.local import DeviceOptions, TransformersEngine
from workers.engine.model_folder import load
from workers.engine.random_model import Geometry, make_mllama

INSTALLED = importlib.util.find_spec("bitsandbytes") is not None
WIDE = Geometry(width=256, layers=5, cross=(1, 3), heads=4, kv_heads=2, tile=32, patch=8, tiles=4, context=400)
"""Every layer is a multiple of the 64 numbers that share a scale."""


@pytest.mark.skipif(INSTALLED, reason="bitsandbytes is installed")
def test_the_error_names_the_extra(mllama: Path):
    with pytest.raises(BadInput, match=r"stagebeam\[quant\]"):
        TransformersEngine(str(mllama), DeviceOptions(device="cpu", quantize="int8"))


def test_an_unknown_kind_is_refused(mllama: Path):
    with pytest.raises(BadInput, match="use int8 or int4"):
        TransformersEngine(str(mllama), DeviceOptions(device="cpu", quantize="int3"))


@pytest.mark.skipif(not INSTALLED, reason="needs the extra quant")
def test_four_bits_say_what_generate_says(tmp_path: Path, pictures: dict[str, bytes]):
    folder = str(make_mllama(tmp_path, WIDE))
    held = load(folder, device="cpu", dtype="float32", quantize="int4")
    plain = load(folder, device="cpu", dtype="float32")
    assert size(held.model) < size(plain.model) / 4
    reference = Reference((held.model, held.processor), pictures)
    engine = TransformersEngine(folder, DeviceOptions(device="cpu", quantize="int4", memory_mb=64))
    for prompt in (ask("What is it?", ["picture0"]), ask("How many?")):
        found = engine.generate(generate(prompt, pictures)).result(timeout=30)
        assert found.candidates[0].token_ids == reference.greedy(prompt, GREEDY.max_tokens)
    engine.close()


@pytest.mark.skipif(not INSTALLED, reason="needs the extra quant")
@pytest.mark.parametrize("width", [224, 288])
def test_a_layer_that_four_bits_cannot_hold_is_named_when_the_model_is_opened(tmp_path: Path, width: int):
    folder = str(make_mllama(tmp_path, replace(WIDE, width=width)))
    with pytest.raises(BadInput, match=rf"layer model\.\S+, {width} numbers in .* multiples of 64 and 32") as raised:
        TransformersEngine(folder, DeviceOptions(device="cpu", quantize="int4"))
    assert (raised.value.code, raised.value.field) == ("invalid_settings", "quantize")


def size(model: torch.nn.Module) -> int:
    """Bytes of the weights."""
    return sum(p.numel() * p.element_size() for p in model.parameters())
