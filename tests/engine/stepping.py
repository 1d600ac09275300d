"""A loop stepped by the test itself, so that what happens between two steps is the test's choice."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

import torch

from workers.engine.admission import Limits
from workers.engine.loop import IDLE_S, Loop

MIB = 1024 * 1024
PATIENCE_S = 60.0


class Pictures(dict[str, bytes]):
    """Keeps the bytes out of failure reports."""

    def __repr__(self) -> str:
        return "pictures"


def limits(rows: int, trunks: int, pictures: int, memory: int, step_tokens: int, feature_bytes: int = 40_000) -> Limits:
    return Limits(
        rows=rows,
        trunks=trunks,
        pictures=pictures,
        trunk_bytes=memory,
        twig_bytes=memory,
        picture_bytes=4 * MIB,
        feature_bytes=feature_bytes,
        step_tokens=step_tokens,
        vision_batch=2,
        threads=1,
    )


def step(loop: Loop) -> bool:
    with torch.inference_mode():
        return loop.step()


def run_until(loop: Loop, future: Future[Any]) -> None:
    """Step until the future is done. Bounded by time: the threads that prepare may wait long for a core."""
    end = time.monotonic() + PATIENCE_S
    while not future.done():
        if not step(loop):
            # As `run` does: the threads that prepare get the interpreter.
            loop._wake.wait(IDLE_S)
            loop._wake.clear()
        assert time.monotonic() < end, f"the loop does not end: {loop.counts()}"


def end(loop: Loop) -> None:
    """Close the loop and let go of what it holds."""
    loop.close()
    loop.run()
