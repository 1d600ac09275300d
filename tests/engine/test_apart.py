"""Engines in processes of their own: they say what one in this process says, and nothing is lost with them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from reasoning.errors import BadInput, ModelError, Transient
from tests.engine.reference import WARM, ask, choose, generate
from tests.waiting import wait_until
from workers.engine.apart import ApartEngine
from workers.engine.local import DeviceOptions, TransformersEngine
from workers.engine.protocol import Generate, Sampling
from workers.engine.registry import Shared, open_engine, share

OPTIONS = {"device": "cpu", "memory_mb": 64, "rows": 32}
LONG = Sampling(temperature=0.9, top_p=1.0, top_k=0, max_tokens=350)


@pytest.fixture(scope="module")
def apart(mllama: Path) -> Iterator[ApartEngine]:
    engine = ApartEngine(str(mllama), OPTIONS, slots=64, processes=2, cores=1)
    yield engine
    engine.close()


def test_the_smallest_budget_is_not_taken_for_none():
    """0 stands for the default."""
    assert share({"memory_mb": 1}, 2) == {"rows": 256, "memory_mb": 1}
    assert share({"memory_mb": "64", "rows": "33"}, 2) == {"rows": 17, "memory_mb": 32}
    assert share({}, 4) == {"rows": 128, "memory_mb": 512}


def test_settings_read_before_torch_is_there_have_the_same_defaults():
    early, late = Shared(), DeviceOptions()
    assert (early.slots, early.rows, early.memory_mb) == (late.slots, late.rows, late.memory_mb)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("rows", value) for value in ("many", 0, 8.5, None)],
        *[(name, value) for name in ("slots", "memory_mb", "threads", "step_tokens") for value in ("x", -1)],
        ("apart", "flase"),
    ],
)
def test_a_setting_that_cannot_be_is_named(mllama: Path, apart: bool, name: str, value: object):
    with pytest.raises(BadInput, match=f"engine setting {name} is") as caught:
        open_engine(str(mllama), {"device": "cpu", "apart": apart, name: value})
    assert caught.value.field == name


def processes() -> list[psutil.Process]:
    """The engines that this process started and that still run."""
    return [child for child in psutil.Process().children() if "workers.engine.apart_child" in child.cmdline()]


def long_one(pictures: dict[str, bytes], **more: Any) -> Generate:
    return generate(ask("Go on and on?", ["picture0"]), pictures, sampling=LONG, stop="never", **more)


def test_two_processes_say_what_one_batch_says(
    apart: ApartEngine, engine: TransformersEngine, pictures: dict[str, bytes]
):
    images = [*([name] for name in pictures), []]
    requests = [
        generate(ask(f"{k} of many?", images[k % len(images)]), pictures, seeds=(k, 2**62 + k), sampling=WARM)
        for k in range(24)
    ]
    judging = [choose(ask(f"{k}?", [name]), pictures, ("ball", "cube")) for k, name in enumerate(pictures)]
    before = apart.counters().values
    told = [apart.generate(request) for request in requests]
    chosen = [apart.choose(request) for request in judging]
    assert [f.result().candidates for f in told] == [engine.generate(r).result().candidates for r in requests]
    expected = [engine.choose(request).result().probabilities for request in judging]
    assert [f.result().probabilities for f in chosen] == [pytest.approx(shares, abs=1e-5) for shares in expected]
    done = {name: count - before[name] for name, count in apart.counters().values.items()}
    assert done["requests"] == len(requests) + len(judging)
    assert done["vision_calls"] == len(pictures)


def test_images_that_cannot_be_had_fail_their_calls_alone(apart: ApartEngine, pictures: dict[str, bytes]):
    def away(_content_hash: str) -> bytes:
        raise Transient("the object store is away")

    missing = generate(ask("Where?", ["nowhere"]), pictures)
    late = Generate(
        **{name: getattr(missing, name) for name in missing.__dataclass_fields__ if name != "load_image"},
        load_image=away,
    )
    with pytest.raises(ModelError, match="not in the object store"):
        apart.generate(missing).result()
    with pytest.raises(Transient, match="store is away"):
        apart.generate(late).result()
    assert apart.generate(generate(ask("Here?", ["picture0"]), pictures)).result().candidates


def test_an_image_that_a_given_up_call_asked_for_comes_for_the_next(mllama: Path, pictures: dict[str, bytes]):
    """The first call ends before its image is looked for: the second must not be told that there is none."""
    held, come = threading.Semaphore(0), threading.Event()

    def slow(_image: str) -> bytes:
        held.release()
        come.wait(30)
        return pictures["picture0"]

    engine = ApartEngine(str(mllama), {**OPTIONS, "threads": 4}, slots=8, processes=1, cores=1)
    asked = [replace(generate(ask("?", [f"slow{k}"]), pictures), load_image=slow) for k in range(2)]
    others = [engine.generate(request) for request in asked]
    for _ in others:  # as many as are looked for at once
        held.acquire()
    wanted = generate(ask("?", ["picture1"]), pictures)
    first = engine.generate(replace(wanted, deadline=time.monotonic() + 0.2))
    second = engine.generate(wanted)
    error = first.exception(timeout=10)
    come.set()
    assert isinstance(error, ModelError)
    assert error.code == "deadline"
    assert second.result(timeout=20).candidates
    engine.close()


def test_what_no_message_can_carry_fails_its_call(apart: ApartEngine, pictures: dict[str, bytes]):
    """Half of a surrogate pair has no place in JSON; more often than there are slots, as none may be lost."""
    for _ in range(65):
        error = apart.generate(generate(ask("half a pair: \ud83d"), pictures)).exception(timeout=10)
        assert isinstance(error, ModelError)
        assert error.code == "bad_prompt"


def test_a_cancel_reaches_the_other_process(apart: ApartEngine, pictures: dict[str, bytes]):
    flag = threading.Event()
    future = apart.generate(long_one(pictures, cancelled=flag.is_set))
    flag.set()
    with pytest.raises(ModelError) as caught:
        future.result()
    assert caught.value.code == "cancelled"


def test_a_lost_process_fails_its_calls_and_ends_this_one(mllama: Path, pictures: dict[str, bytes]):
    died = threading.Event()
    others = {child.pid for child in processes()}
    engine = ApartEngine(str(mllama), OPTIONS, slots=4, processes=1, cores=1, die=died.set)
    future = engine.generate(long_one(pictures, seeds=tuple(range(16))))
    (child,) = (child for child in processes() if child.pid not in others)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(Transient):
        future.result()
    wait_until(died.is_set)
    engine.close()


def test_closing_ends_the_processes_and_fails_what_they_had(mllama: Path, pictures: dict[str, bytes]):
    others = {child.pid for child in processes()}
    engine = ApartEngine(str(mllama), OPTIONS, slots=4, processes=1, cores=1)
    future = engine.generate(long_one(pictures, seeds=tuple(range(16))))
    engine.close()
    with pytest.raises(Transient):
        future.result()
    with pytest.raises(Transient):
        engine.generate(long_one(pictures)).result()
    assert {child.pid for child in processes()} == others


def test_a_model_that_cannot_be_loaded_is_told_as_in_one_process(tmp_path: Path, mllama: Path):
    with pytest.raises(BadInput, match="config"):
        ApartEngine(str(tmp_path), OPTIONS, slots=4, processes=1, cores=1)
