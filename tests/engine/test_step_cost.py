"""No step's Python work grows with the length of the text: counted in byte code, not in seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from statistics import median
from types import FrameType
from typing import Any

import torch

from tests.engine.reference import Reference, ask, generate
from tests.waiting import wait_until
from workers.engine.adapters.choose import adapter_for
from workers.engine.admission import Limits
from workers.engine.loop import Loop
from workers.engine.model_folder import load
from workers.engine.protocol import Sampling

MIB = 1024 * 1024
WINDOW = 24
"""Steps looked at, early and late."""
LONG = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=330)
LIMITS = Limits(
    rows=8, trunks=4, pictures=4, trunk_bytes=8 * MIB, twig_bytes=8 * MIB, picture_bytes=4 * MIB,
    feature_bytes=4 * MIB, step_tokens=4096, vision_batch=2, threads=1,
)  # fmt: skip


@contextmanager
def byte_code() -> Iterator[count[int]]:
    """Counts the byte-code instructions that this thread runs within the block, in all functions it calls."""
    counted = count()

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            next(counted)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield counted
    finally:
        sys.settrace(before)


def test_a_late_step_takes_no_more_python_than_an_early_one(mllama: Any, reference: Reference, pictures: Any):
    checkpoint = load(str(mllama), device="cpu", dtype="float32")
    adapter = adapter_for(checkpoint.model, checkpoint.processor)
    assert adapter
    loop = Loop(adapter, reference.encoder, frozenset(), LIMITS)
    future = loop.submit(generate(ask("Go on", ["picture0"]), pictures, seeds=range(4), sampling=LONG))
    wait_until(lambda: step(loop) is None and loop.counts()["rows"] == 4)
    work = []
    while not future.done():
        with byte_code() as counted:
            step(loop)
        work.append(next(counted))
    assert len(future.result().candidates) == 4
    assert len(work) > 10 * WINDOW
    early, late = work[WINDOW : 2 * WINDOW], work[-WINDOW - 1 : -1]
    assert median(late) <= 1.02 * median(early)
    assert max(late) <= 1.1 * max(early)


def step(loop: Loop) -> None:
    with torch.inference_mode():
        loop.step()
