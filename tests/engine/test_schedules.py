"""Whatever arrives in whatever order, with whatever room: each answer is that of the plain reference."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reasoning.errors import ModelError
from tests.engine.kernel import reference as reference_kernel
from tests.engine.reference import Reference, ask, choose, generate
from tests.waiting import wait_until
from workers.engine.adapters.choose import adapter_for
from workers.engine.admission import Limits
from workers.engine.loop import Loop
from workers.engine.model_folder import load
from workers.engine.protocol import Sampling
from workers.engine.ragged import Ragged

MIB = 1024 * 1024
PATIENCE_S = 60.0
QUESTIONS = ("a?", "what is in it", "b? or rather the other one, over there")


@pytest.fixture(scope="module")
def adapter(mllama: Any) -> Any:
    checkpoint = load(str(mllama), device="cpu", dtype="float32")
    return adapter_for(checkpoint.model, checkpoint.processor)


@pytest.fixture(scope="module", params=["padded", "ragged"])
def ragged(request: pytest.FixtureRequest, adapter: Any) -> Ragged | None:
    """Both ways to compute attention; without a GPU the second over plain torch."""
    return Ragged(adapter.heads, reference_kernel) if request.param == "ragged" else None


@pytest.fixture(scope="module")
def expected(reference: Reference) -> Any:
    """The reference, remembered: Hypothesis comes back to the same few questions."""

    @cache
    def find(question: str, images: tuple[str, ...], seed: int, sampling: Sampling, path: tuple[int, ...]) -> Any:
        return reference.sample(ask(question, images), seed, sampling, path)

    return find


def limits(rows: int, trunks: int, pictures: int, memory: int, step_tokens: int) -> Limits:
    return Limits(
        rows=rows,
        trunks=trunks,
        pictures=pictures,
        trunk_bytes=memory,
        twig_bytes=memory,
        picture_bytes=4 * MIB,
        feature_bytes=40_000,
        step_tokens=step_tokens,
        vision_batch=2,
        threads=1,
    )


asked = st.tuples(
    st.sampled_from(QUESTIONS),
    st.sampled_from([(), ("picture0",), ("picture1",), ("picture3", "picture0")]),
    st.integers(1, 4),
    st.sampled_from(
        [
            Sampling(temperature=t, top_p=p, top_k=k, max_tokens=m)
            for t, p, k, m in [(0.0, 1.0, 0, 5), (0.9, 0.9, 20, 6), (1.2, 1.0, 0, 3), (0.7, 0.5, 0, 1)]
        ]
    ),
    st.sampled_from(["generate", "generate", "next stage", "choose", "cancel"]),
    st.integers(0, 4),
)


@settings(max_examples=25, derandomize=True)
@given(
    plan=st.lists(asked, min_size=1, max_size=8),
    rows=st.integers(1, 6),
    trunks=st.integers(2, 6),
    pictures=st.integers(1, 3),
    memory=st.sampled_from([MIB // 2, 8 * MIB]),
    step_tokens=st.sampled_from([1, 100, 4096]),
)
def test_any_schedule_gives_the_reference(
    adapter: Any,
    ragged: Ragged | None,
    expected: Any,
    reference: Reference,
    pictures_of: Any,
    plan: Any,
    rows: int,
    trunks: int,
    pictures: int,
    memory: int,
    step_tokens: int,
):
    room = limits(rows, trunks, pictures, memory, step_tokens)
    loop = Loop(adapter, reference.encoder, frozenset(reference.ends), room, ragged)
    cancelled: set[int] = set()
    waiting: list[tuple[Future[Any], Any]] = []
    for number, (question, images, count, sampling, kind, steps) in enumerate(plan):
        prompt = ask(question, images)
        if kind == "choose":
            waiting.append((loop.submit(choose(prompt, pictures_of, group=question)), None))
        else:
            request = generate(
                prompt,
                pictures_of,
                seeds=range(number, number + count),
                sampling=sampling,
                group=question,
                cancelled=lambda number=number: number in cancelled,
            )
            future = loop.submit(request)
            waiting.append((future, (request, ())))
            if kind == "next stage":
                run_until(loop, future)
                path = future.result().candidates[-1].token_ids
                again = generate(
                    prompt, pictures_of, seeds=(number,), sampling=sampling, group=question, prefix_ids=path
                )
                waiting.append((loop.submit(again), (again, path)))
        for _ in range(steps):
            step(loop)
        if kind == "cancel":
            cancelled.add(number)
    for future, what in waiting:
        run_until(loop, future)
        check(future, what, expected)
    assert loop.counts()["rows"] == 0
    assert loop.counts()["crashes"] == 0
    loop.close()
    loop.run()


def check(future: Future[Any], what: Any, expected: Any) -> None:
    error = future.exception()
    if error is not None:
        assert isinstance(error, ModelError)
        assert error.code == "cancelled"
    elif what is None:
        assert sum(future.result().probabilities) == pytest.approx(1)
    else:
        request, path = what
        for candidate in future.result().candidates:
            prompt = request.prompt
            wanted = expected(prompt.messages[0].text, prompt.images, candidate.seed, request.sampling, path)
            assert candidate.token_ids == wanted


def step(loop: Loop) -> None:
    with torch.inference_mode():
        loop.step()


def run_until(loop: Loop, future: Future[Any]) -> None:
    """Step until the future is done. Bounded by time: the threads that prepare may wait long for a core."""
    end = time.monotonic() + PATIENCE_S
    while not future.done():
        step(loop)
        assert time.monotonic() < end, f"the loop does not end: {loop.counts()}"


class Pictures(dict[str, bytes]):
    """Keeps the bytes out of failure reports."""

    def __repr__(self) -> str:
        return "pictures"


@pytest.fixture(scope="module")
def pictures_of(pictures: dict[str, bytes]) -> Pictures:
    return Pictures(pictures)


def test_a_job_whose_features_were_given_up_while_it_waited_is_prepared_again(
    adapter: Any, reference: Reference, pictures_of: Pictures
):
    """One image of it was cached when it was prepared, and is gone when its turn comes."""
    loop = Loop(adapter, reference.encoder, frozenset(reference.ends), limits(8, 8, 8, 8 * MIB, 4096))
    cached = loop.submit(generate(ask("first", ("picture3",)), pictures_of))
    run_until(loop, cached)
    prepared = threading.Event()

    def load(image: str) -> bytes:
        prepared.set()
        return pictures_of[image]

    others = [loop.submit(generate(ask("other", (image,)), pictures_of)) for image in ("picture1", "picture2")]
    both = loop.submit(generate(ask("both", ("picture3", "picture0")), pictures_of))
    # One thread prepares in order of submission: when it loads this image, the others are ready.
    last = loop.submit(replace(generate(ask("last", ("picture4",)), pictures_of), load_image=load))
    wait_until(prepared.is_set)
    for future in (*others, both, last):
        run_until(loop, future)
        assert future.result().candidates
    loop.close()
    loop.run()


def test_images_that_are_seen_together_enter_the_batch_together_however_few_are_kept(
    adapter: Any, reference: Reference, pictures_of: Pictures
):
    """Room for two images' features, and four seen at once: none passes the vision tower twice."""
    few = replace(limits(8, 8, 8, 8 * MIB, 4096), vision_batch=4)
    loop = Loop(adapter, reference.encoder, frozenset(reference.ends), few)
    prepared = threading.Event()

    def load(image: str) -> bytes:
        prepared.set()
        return pictures_of[image]

    asked = [generate(ask("which?", (image,)), pictures_of) for image in ("picture0", "picture1", "picture2")]
    asked.append(replace(generate(ask("which?", ("picture3",)), pictures_of), load_image=load))
    futures = [loop.submit(request) for request in asked]
    wait_until(prepared.is_set)
    for future in futures:
        run_until(loop, future)
    assert loop.counts()["vision_calls"] == len(futures)
    loop.close()
    loop.run()
