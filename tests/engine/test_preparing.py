"""Ahead of the batch: who waits for an image that does not come, and what is kept of those that came."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from reasoning.errors import ModelError
from tests.engine.reference import Reference, ask, generate
from tests.engine.stepping import MIB, end, limits, run_until, step
from tests.waiting import wait_until
from workers.engine.adapters.base import ImageInput
from workers.engine.adapters.choose import adapter_for
from workers.engine.local import TransformersEngine
from workers.engine.loop import Loop
from workers.engine.model_folder import load


def pixels_held() -> int:
    """Preprocessed images in memory."""
    gc.collect()
    return sum(type(item) is ImageInput and bool(item.tensors) for item in gc.get_objects())


@pytest.mark.parametrize("code", ["deadline", "cancelled"])
def test_a_call_whose_image_does_not_come_is_given_up_in_time(
    engine: TransformersEngine, pictures: dict[str, bytes], code: str
):
    asked, came = threading.Event(), threading.Event()
    cancelled = threading.Event()

    def slow(_image: str) -> bytes:
        asked.set()
        came.wait(30)
        return pictures["picture0"]

    request = replace(generate(ask("slow", (f"slow for {code}",)), pictures), load_image=slow)
    if code == "deadline":
        request = replace(request, deadline=time.monotonic() + 0.1)
    future = engine.generate(replace(request, cancelled=cancelled.is_set))
    wait_until(asked.is_set)
    if code == "cancelled":
        cancelled.set()
    try:
        error = future.exception(timeout=5)
    finally:
        came.set()
    assert isinstance(error, ModelError)
    assert error.code == code
    again = generate(ask("slow", (f"slow for {code}",)), {f"slow for {code}": pictures["picture0"]})
    assert engine.generate(again).result(timeout=20).candidates


def test_no_pixels_are_kept_of_calls_that_ended(mllama: Any, reference: Reference, pictures: dict[str, bytes]):
    """Refused, given up while waiting, or done: the pixels go, however long its candidates are kept."""
    before = pixels_held()
    checkpoint = load(str(mllama), device="cpu", dtype="float32")
    adapter = adapter_for(checkpoint.model, checkpoint.processor)
    assert adapter is not None
    loop = Loop(adapter, reference.encoder, frozenset(reference.ends), limits(8, 8, 8, 8 * MIB, 4096))
    done = loop.submit(generate(ask("done", ("picture0",)), pictures))
    run_until(loop, done)
    refused = loop.submit(generate(ask("x" * 500, ("picture1",)), pictures))
    run_until(loop, refused)
    assert isinstance(refused.exception(), ModelError)
    del refused  # its error knows where it was raised, and all that was at hand there
    given_up = threading.Event()
    waiting = loop.submit(replace(generate(ask("waits", ("picture2",)), pictures), cancelled=given_up.is_set))
    wait_until(lambda: bool(loop._arrived))
    assert pixels_held() == before + 1
    given_up.set()
    step(loop)
    assert isinstance(waiting.exception(0), ModelError)
    assert done.result().candidates
    assert pixels_held() == before
    end(loop)
