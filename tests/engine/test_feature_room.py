"""Room for the features of few images: no job starves, and none passes the vision tower without need."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.engine.reference import Reference, ask, generate
from tests.engine.stepping import MIB, end, limits, run_until
from tests.waiting import wait_until
from workers.engine.adapters.choose import adapter_for
from workers.engine.images import decode
from workers.engine.loop import Loop
from workers.engine.model_folder import load


@pytest.fixture(scope="module")
def adapter(mllama: Any) -> Any:
    checkpoint = load(str(mllama), device="cpu", dtype="float32")
    return adapter_for(checkpoint.model, checkpoint.processor)


def test_features_keep_no_more_memory_than_is_counted(adapter: Any, pictures: dict[str, bytes]):
    """Those of images seen together are given up one by one."""
    inputs = [adapter.image_input(decode(image, pictures.__getitem__)) for image in ("picture0", "picture2")]
    with torch.inference_mode():
        for found in adapter.see(inputs):
            assert found.values.untyped_storage().nbytes() == found.nbytes


def test_a_job_whose_features_were_given_up_while_it_waited_is_prepared_again(
    adapter: Any, reference: Reference, pictures: dict[str, bytes]
):
    """One image of it was cached when it was prepared, and is gone when its turn comes."""
    loop = Loop(adapter, reference.encoder, frozenset(reference.ends), limits(8, 8, 8, 8 * MIB, 4096))
    cached = loop.submit(generate(ask("first", ("picture3",)), pictures))
    run_until(loop, cached)
    prepared = threading.Event()

    def load(image: str) -> bytes:
        prepared.set()
        return pictures[image]

    others = [loop.submit(generate(ask("other", (image,)), pictures)) for image in ("picture1", "picture2")]
    both = loop.submit(generate(ask("both", ("picture3", "picture0")), pictures))
    # One thread prepares in order of submission: when it loads this image, the others are ready.
    last = loop.submit(replace(generate(ask("last", ("picture4",)), pictures), load_image=load))
    wait_until(prepared.is_set)
    for future in (*others, both, last):
        run_until(loop, future)
        assert future.result().candidates
    end(loop)


def test_images_that_are_seen_together_enter_the_batch_together_however_few_are_kept(
    adapter: Any, reference: Reference, pictures: dict[str, bytes]
):
    """Room for two images' features, and four seen at once: none passes the vision tower twice."""
    few = replace(limits(8, 8, 8, 8 * MIB, 4096), vision_batch=4)
    loop = Loop(adapter, reference.encoder, frozenset(reference.ends), few)
    prepared = threading.Event()

    def load(image: str) -> bytes:
        prepared.set()
        return pictures[image]

    asked = [generate(ask("which?", (image,)), pictures) for image in ("picture0", "picture1", "picture2")]
    asked.append(replace(generate(ask("which?", ("picture3",)), pictures), load_image=load))
    futures = [loop.submit(request) for request in asked]
    wait_until(prepared.is_set)
    for future in futures:
        run_until(loop, future)
    assert loop.counts()["vision_calls"] == len(futures)
    end(loop)
