"""Crashes, memory and hanging devices: the calls in hand get the reason, everything else goes on."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
from safetensors.torch import load_file, save_file

from reasoning.errors import BadInput, ModelError
from tests.engine.reference import WARM, ask, choose, generate
from tests.waiting import wait_until
from workers.engine import apart_child
from workers.engine.adapters.mllama import MllamaAdapter
from workers.engine.local import DeviceOptions, TransformersEngine
from workers.engine.protocol import Sampling
from workers.engine.random_model import Geometry, make_mllama
from workers.engine.sampling import Draw
from workers.engine.watchdog import Watchdog

Open = Callable[..., TransformersEngine]


@pytest.fixture
def open_engine(mllama: Path) -> Iterator[Open]:
    opened: list[TransformersEngine] = []

    def one(**options: Any) -> TransformersEngine:
        opened.append(TransformersEngine(str(mllama), DeviceOptions(device="cpu", **({"memory_mb": 64} | options))))
        return opened[-1]

    yield one
    for engine in opened:
        engine.close()


def on_forward(monkeypatch: pytest.MonkeyPatch, before: Callable[[Any], None]) -> None:
    """Have `before` called with every packed step: the real model runs, and fails where the test says."""
    forward = MllamaAdapter.forward

    def failing(self: MllamaAdapter, packed: Any) -> torch.Tensor:
        before(packed)
        return forward(self, packed)

    monkeypatch.setattr(MllamaAdapter, "forward", failing)


def test_a_crash_fails_what_it_held_and_the_loop_goes_on(
    open_engine: Open, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    engine = open_engine()
    poison = 254

    def crash(packed: Any) -> None:
        if (packed.ids == poison).sum() >= 3:
            raise ValueError("kernel launch failed")

    on_forward(monkeypatch, crash)
    before = engine.generate(generate(ask("fine", ["picture0"]), pictures)).result()
    ids = (poison, poison, poison)
    error = engine.generate(generate(ask("bad"), pictures, prefix_ids=ids)).exception(timeout=20)
    assert isinstance(error, ModelError)
    assert error.code == "crash"
    assert error.retryable
    assert "kernel launch failed" in str(error)
    after = engine.generate(generate(ask("fine", ["picture0"]), pictures)).result()
    assert after.candidates == before.candidates
    assert engine.counters().values["crashes"] == 1


def test_too_little_memory_halves_the_batch_and_loses_nothing(
    open_engine: Open, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    engine = open_engine(rows=16)
    requests = [
        generate(ask(f"{k}?", ["picture0"]), pictures, seeds=(k, k + 1, k + 2, k + 3), sampling=WARM) for k in range(6)
    ]
    wanted = [engine.generate(request).result().candidates for request in requests]

    def too_many(packed: Any) -> None:
        if packed.step.rows > 5:
            raise torch.OutOfMemoryError("no memory for so many rows")

    on_forward(monkeypatch, too_many)
    found = [future.result().candidates for future in [engine.generate(request) for request in requests]]
    assert found == wanted
    assert engine.counters().values["out_of_memory"] > 0
    assert engine.counters().values["row_limit"] <= 8


def test_too_little_memory_for_prompts_beside_rows_loses_nothing(
    open_engine: Open, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    engine = open_engine(rows=16)
    requests = [generate(ask(f"{k} of many?", ["picture0"]), pictures, seeds=(k, k + 1)) for k in range(8)]
    wanted = [engine.generate(request).result().candidates for request in requests]
    fresh = {f"again{k}": pictures["picture0"] for k in range(8)}
    again = [generate(ask(f"{k} of many?", [f"again{k}"]), fresh, seeds=(k, k + 1)) for k in range(8)]

    def too_many(packed: Any) -> None:
        if len(packed.ids) > 100:
            raise torch.OutOfMemoryError("no memory for so many tokens")

    on_forward(monkeypatch, too_many)
    found = [future.result(timeout=25).candidates for future in [engine.generate(request) for request in again]]
    assert found == wanted
    assert engine.counters().values["out_of_memory"] > 0


@pytest.mark.parametrize("lost", [0, 1, 5])
def test_too_little_memory_for_a_draw_loses_nothing(
    open_engine: Open, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, lost: int
):
    engine = open_engine(rows=16)
    requests = [generate(ask(f"{k} drawn?"), pictures, seeds=(k, k + 1), sampling=WARM) for k in range(4)]
    wanted = [engine.generate(request).result().candidates for request in requests]
    draw, draws = Draw.__call__, iter(range(1000))

    def failing(self: Draw, logits: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        if len(logits) > 2 and next(draws) == lost:
            raise torch.OutOfMemoryError("no memory for the noise")
        return draw(self, logits, positions)

    monkeypatch.setattr(Draw, "__call__", failing)
    found = [future.result(timeout=25).candidates for future in [engine.generate(request) for request in requests]]
    assert found == wanted
    assert engine.counters().values["crashes"] == 0


def test_a_call_too_large_for_the_memory_fails_alone(open_engine: Open, pictures: dict[str, bytes]):
    engine = open_engine(memory_mb=1, rows=4)
    long = Sampling(temperature=1.5, top_p=1.0, top_k=0, max_tokens=390)
    huge = engine.generate(generate(ask("x" * 300, ["picture4"]), pictures, seeds=tuple(range(4)), sampling=long))
    small = engine.generate(generate(ask("?"), pictures))
    error = huge.exception(timeout=25)
    assert error is None or (isinstance(error, ModelError) and error.code == "out_of_memory")
    assert small.result(timeout=25).candidates


def test_memory_for_not_even_one_prompt_is_refused_when_the_model_is_opened(tmp_path: Path):
    folder = str(make_mllama(tmp_path, Geometry(width=512, layers=4, cross=(1,), heads=8, kv_heads=8)))
    with pytest.raises(BadInput, match=r"0\.2 MiB for prompts .* raise memory_mb"):
        TransformersEngine(folder, DeviceOptions(device="cpu", memory_mb=1))


def test_the_vision_tower_failing_on_one_image_spares_the_others(
    open_engine: Open, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    engine = open_engine()
    see = MllamaAdapter.see

    def picky(self: MllamaAdapter, inputs: Any) -> Any:
        if any(int(item.tensors["aspect_ratio_mask"].sum()) == 3 for item in inputs):
            raise RuntimeError("bad tile")
        return see(self, inputs)

    monkeypatch.setattr(MllamaAdapter, "see", picky)
    futures = [engine.generate(generate(ask("?", [f"picture{k}"]), pictures)) for k in range(5)]
    outcomes = [future.exception(timeout=20) for future in futures]
    codes = {error.code for error in outcomes if isinstance(error, ModelError)}
    assert codes == {"crash"}
    assert outcomes.count(None) >= 2


def test_too_little_memory_to_look_at_all_images_at_once_loses_nothing(
    open_engine: Open, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    engine = open_engine()
    see = MllamaAdapter.see

    def narrow(self: MllamaAdapter, inputs: Any) -> Any:
        if len(inputs) > 1:
            raise torch.OutOfMemoryError("no memory for so many images")
        return see(self, inputs)

    monkeypatch.setattr(MllamaAdapter, "see", narrow)
    futures = [engine.generate(generate(ask("?", ["picture0", f"picture{k}"]), pictures)) for k in range(1, 5)]
    assert all(future.result(timeout=20).candidates for future in futures)


def test_a_crash_at_a_picture_leaves_no_slot_that_nobody_knows(
    open_engine: Open, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    engine = open_engine(slots=2)  # and so room for two pictures
    picture, left = MllamaAdapter.picture, iter([True])

    def failing(self: MllamaAdapter, *rest: Any) -> Any:
        if next(left, False):
            raise RuntimeError("bad kernel")
        return picture(self, *rest)

    monkeypatch.setattr(MllamaAdapter, "picture", failing)
    error = engine.generate(generate(ask("?", ["picture0"]), pictures)).exception(timeout=20)
    assert isinstance(error, ModelError)
    for number in (0, 1, 2, 3):
        assert engine.generate(generate(ask("?", [f"picture{number}"]), pictures)).result(timeout=20).candidates
    assert engine.counters().values["crashes"] == 0


def test_the_watchdog_ends_a_process_whose_device_hangs():
    died = threading.Event()
    watchdog = Watchdog(lambda: 0.0, 0.05, died.set)
    wait_until(died.is_set)
    watchdog.close()


def test_the_watchdog_leaves_a_busy_loop_alone(
    open_engine: Open, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    engine = open_engine()
    hanging, died = threading.Event(), threading.Event()
    idle = Watchdog(engine.busy_since, 0.5, died.set)
    engine.generate(generate(ask("?"), pictures)).result()
    assert not died.is_set()
    idle.close()
    on_forward(monkeypatch, lambda _packed: hanging.wait(20) and None)
    watchdog = Watchdog(engine.busy_since, 0.1, died.set)
    future = engine.generate(generate(ask("hang"), pictures))
    wait_until(died.is_set)
    hanging.set()
    assert future.result(timeout=20)
    watchdog.close()


def test_a_loop_that_ends_by_an_error_ends_the_process(mllama: Path, monkeypatch: pytest.MonkeyPatch):
    def broken() -> bool:
        raise LookupError("an error of the loop itself")

    died = threading.Event()
    engine = TransformersEngine(str(mllama), DeviceOptions(device="cpu", memory_mb=64), die=died.set)
    monkeypatch.setattr(engine._loop, "step", broken)
    wait_until(died.is_set)
    engine.close()


def test_labels_that_begin_alike_are_refused(open_engine: Open, pictures: dict[str, bytes]):
    engine = open_engine()
    error = engine.choose(choose(ask("?"), pictures, ("cat", "car"))).exception(timeout=20)
    assert isinstance(error, ModelError)
    assert error.code == "labels_not_distinct"


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("config.json", "lacks config.json"),
        ("model.safetensors", "lacks *.safetensors"),
        ("tokenizer.json", "lacks tokenizer.json"),
        ("processor_config.json", "lacks preprocessor_config.json or processor_config.json"),
        ("chat_template.jinja", "has no chat template; add chat_template.jinja"),
    ],
)
def test_a_folder_with_a_missing_file_is_named(mllama: Path, tmp_path: Path, missing: str, said: str):
    for path in mllama.iterdir():
        if path.name != missing:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(BadInput, match=re.escape(said)) as raised:
        TransformersEngine(str(tmp_path), DeviceOptions(device="cpu"))
    assert raised.value.code == "unknown_model"


def test_weights_cut_short_are_told(mllama: Path, tmp_path: Path):
    shutil.copytree(mllama, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(BadInput, match="cannot be loaded") as raised:
        TransformersEngine(str(tmp_path), DeviceOptions(device="cpu"))
    assert raised.value.code == "unknown_model"


def test_weights_that_lack_a_tensor_are_told(mllama: Path, tmp_path: Path):
    shutil.copytree(mllama, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if "q_proj" in name)
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=r"lack .*q_proj"):
        TransformersEngine(str(tmp_path), DeviceOptions(device="cpu"))


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(BadInput, match="no model folder"):
        TransformersEngine("/nowhere/model")


def test_the_log_of_an_engine_in_its_own_process_tells_the_failure_and_no_texts(capsys: pytest.CaptureFixture[str]):
    def crash(question: str) -> None:
        raise ValueError("kernel launch failed")

    before = structlog.get_config()
    apart_child.set_up_log()
    try:
        crash("terces"[::-1])  # the line itself is told
    except ValueError:
        structlog.get_logger().exception("A step failed.", action="engine.crash")
    finally:
        structlog.configure(**before)
    said = capsys.readouterr().out
    assert "kernel launch failed" in said
    assert "secret" not in said
