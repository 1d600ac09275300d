"""Steps made for the flash kernel: filled up with copies of a row they say the same, and leave the same behind."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

import pytest
import torch

from tests.engine.kernel import reference as kernel
from tests.engine.reference import WARM, Reference, ask, generate
from tests.waiting import wait_until
from workers.engine.adapters.choose import adapter_for
from workers.engine.admission import Limits
from workers.engine.graphs import Inputs
from workers.engine.loop import Loop
from workers.engine.model_folder import load
from workers.engine.packing import Memory, pack
from workers.engine.ragged import Ragged

MIB = 1024 * 1024
LIMITS = Limits(
    rows=16, trunks=8, pictures=8, trunk_bytes=8 * MIB, twig_bytes=8 * MIB, picture_bytes=8 * MIB,
    feature_bytes=4 * MIB, step_tokens=4096, vision_batch=2, threads=1,
)  # fmt: skip


@pytest.fixture
def loop(mllama: Any, reference: Reference, pictures: dict[str, bytes]) -> Loop:
    """Two questions about two pictures under way, five rows in all."""
    checkpoint = load(str(mllama), device="cpu", dtype="float32")
    adapter = adapter_for(checkpoint.model, checkpoint.processor)
    assert adapter
    loop = Loop(adapter, reference.encoder, frozenset(), LIMITS, Ragged(adapter.heads, kernel))
    for name, seeds in (("picture0", range(3)), ("picture3", range(3, 7))):
        loop.submit(generate(ask("What?", [name]), pictures, seeds=seeds, sampling=WARM))
    wait_until(lambda: step(loop) is None and loop.counts()["rows"] == 7)
    step(loop)
    return loop


def step(loop: Loop) -> None:
    with torch.inference_mode():
        loop.step()


def memory_of(loop: Loop) -> Memory:
    return loop._admission


def tensors_of(record: Any) -> list[torch.Tensor]:
    """All tensors in a record and the records in it."""
    if isinstance(record, torch.Tensor):
        return [record]
    names = record.__dataclass_fields__ if is_dataclass(record) else ()
    return [tensor for name in names for tensor in tensors_of(getattr(record, name))]


@pytest.mark.parametrize("pads", [1, 3, 8])
def test_copies_of_the_first_row_change_nothing(loop: Loop, pads: int):
    memory, adapter = memory_of(loop), loop._admission._adapter
    ragged = Ragged(adapter.heads, kernel)
    rows = memory.twigs.active
    with torch.inference_mode():
        wanted = adapter.logits(adapter.forward(pack(adapter, memory, (), ragged=ragged)))
        stored = [pool.keys.clone() for pool in (memory.twigs, memory.trunks)]
        packed = pack(adapter, memory, (), ragged=ragged, pads=pads)
        found = adapter.logits(adapter.forward(packed))
    assert packed.step.rows == len(found) == rows + pads
    torch.testing.assert_close(found[:rows], wanted)
    for pool, before in zip((memory.twigs, memory.trunks), stored, strict=True):
        torch.testing.assert_close(pool.keys, before)


def test_the_numbers_of_a_step_lie_where_those_of_the_last_one_lay(loop: Loop):
    """A recording reads the same addresses step after step, whatever the rows have grown to."""
    memory, adapter = memory_of(loop), loop._admission._adapter
    inputs, ragged = Inputs(torch.device("cpu")), Ragged(adapter.heads, kernel)
    shipped = []
    for _ in range(2):
        inputs.begin()
        packed = pack(adapter, memory, (), ragged=ragged, ship=inputs.ship, pads=16 - memory.twigs.active)
        shipped.append((packed.ids, packed.positions, packed.step))
        with torch.inference_mode():
            wanted = adapter.logits(adapter.forward(packed))
        first = shipped[0]
        assert first[0].data_ptr() == packed.ids.data_ptr()
        assert first[1].data_ptr() == packed.positions.data_ptr()
        for one, two in zip(tensors_of(first[2]), tensors_of(packed.step), strict=True):
            assert one.data_ptr() == two.data_ptr()
        step(loop)
    assert len(inputs.buffers) == 3
    assert len(wanted) == 16
