"""On a GPU in half precision: the flash kernel and recorded steps against padded attention on the same memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.engine.reference import Reference, ask, generate
from tests.waiting import wait_until
from workers.engine.adapters.choose import adapter_for
from workers.engine.admission import Limits
from workers.engine.graphs import Graphs
from workers.engine.loop import Loop
from workers.engine.model_folder import load
from workers.engine.packing import pack, ragged_for
from workers.engine.protocol import Sampling

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

MIB = 1024 * 1024
LIMITS = Limits(
    rows=64, trunks=32, pictures=8, trunk_bytes=64 * MIB, twig_bytes=64 * MIB, picture_bytes=64 * MIB,
    feature_bytes=4 * MIB, step_tokens=4096, vision_batch=2, threads=1, fill_every=2,
)  # fmt: skip
LONG = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=60)


def test_recorded_steps_say_what_padded_attention_says(mllama: Any, reference: Reference, pictures: Any):
    checkpoint = load(str(mllama), device="cuda", dtype="bfloat16")
    adapter = adapter_for(checkpoint.model, checkpoint.processor)
    assert adapter
    ragged = ragged_for(adapter)
    assert ragged
    loop = Loop(adapter, reference.encoder, frozenset(), LIMITS, ragged)
    memory = loop._admission
    graphs = loop._device._graphs
    assert isinstance(graphs, Graphs)
    futures = [
        loop.submit(generate(ask(f"What is {k}?", [f"picture{k % 5}"]), pictures, seeds=range(k), sampling=LONG))
        for k in range(1, 8)
    ]
    worst = 0.0
    with torch.inference_mode():
        wait_until(lambda: loop.step() and loop.counts()["rows"] > 3)
        while not all(future.done() for future in futures):
            if memory.twigs.active and not memory.fills:
                memory.twigs.reserve(max(row.length + 1 for row in memory.twigs.in_use))
                plain = adapter.logits(adapter.forward(pack(adapter, memory, ()))).float()
                ragged_logits = adapter.logits(adapter.forward(pack(adapter, memory, (), ragged=ragged))).float()
                recorded = graphs.decode()
                assert recorded is not None
                torch.testing.assert_close(recorded.float(), ragged_logits, atol=0.02, rtol=0.02)
                worst = max(worst, float((ragged_logits - plain).norm() / plain.norm()))
            loop.step()
    assert worst < 0.02
    assert all(len(candidate.token_ids) == 60 for f in futures for candidate in f.result().candidates)
