"""The `transformers` engine: one loop on one device, fed by many task threads."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import structlog
import torch

from reasoning.errors import BadInput, ModelError, Transient
from workers.engine.adapters.choose import adapter_for
from workers.engine.admission import Limits
from workers.engine.config import at_least
from workers.engine.encode import Encoder
from workers.engine.loop import Loop
from workers.engine.model_folder import Checkpoint, load, pick_device
from workers.engine.packing import ragged_for
from workers.engine.plain import PlainLoop
from workers.engine.pools import PoolFull
from workers.engine.protocol import Choose, Chosen, Counters, EngineInfo, Generate, Generated
from workers.engine.watchdog import Watchdog, end_process

log = structlog.get_logger()

MIB = 1024 * 1024

PICTURE_SHARE = 0.35
"""Of the memory: an image of four tiles takes as much as 1,600 tokens of text in the 11B model."""
FILL_EVERY = 4
"""Steps per step with prompts, where steps of rows alone are recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """Settings of the transformers engine by field name."""

    device: str = "auto"
    dtype: str = "auto"
    quantize: str = ""
    """Empty, `int4`, or `int8` on a GPU; needs the extra `quant`."""
    slots: int = 256
    """Requests in hand at once; a further one blocks its caller."""
    rows: int = 512
    """Candidates in the running batch at once."""
    memory_mb: int = 0
    """Budget for keys, values and image features; 0: 2 GiB on a CPU, 85 % of what the weights leave on a GPU."""
    step_tokens: int = 4096
    """Prompt tokens computed in one step."""
    vision_batch: int = 8
    threads: int = 2
    """Threads that prepare prompts and images."""
    watchdog_s: float = 300.0
    """A device call that lasts longer ends the process; 0 switches this off."""

    def __post_init__(self) -> None:
        at_least(self, slots=1, rows=1, memory_mb=0, step_tokens=1, vision_batch=1, threads=1)


class TransformersEngine:
    """Runs one checkpoint; ready when constructed."""

    def __init__(
        self, name: str, options: DeviceOptions = DeviceOptions(), *, die: Callable[[], None] = end_process
    ) -> None:
        """Load `name` and start the loop thread. Raises BadInput when the model cannot be loaded."""
        device = pick_device(options.device)
        checkpoint = load(name, device=device, dtype=options.dtype, quantize=options.quantize)
        self._loop = _loop(checkpoint, options, device)
        self.info = EngineInfo(
            kind="transformers",
            model=name,
            revision=checkpoint.revision,
            device=device,
            dtype=str(checkpoint.model.dtype).removeprefix("torch."),
            slots=options.slots,
            context=getattr(checkpoint.model.config.get_text_config(), "max_position_embeddings", 4096),
            prompts=checkpoint.prompts,
            has_labels=True,
            keeps_ids=True,
        )
        self._slots = threading.Semaphore(options.slots)
        self._closed = False
        self._thread = threading.Thread(
            target=_run, args=(self._loop, torch.get_num_threads(), die), name="engine-loop", daemon=True
        )
        self._thread.start()
        # A device call cut short by the end of the interpreter aborts the process.
        atexit.register(self.close)
        self._watchdog = Watchdog(self.busy_since, options.watchdog_s, die) if options.watchdog_s else None

    def busy_since(self) -> float | None:
        """When the device call in hand began (`time.monotonic`); None between calls."""
        return self._loop.busy_since

    def generate(self, request: Generate) -> Future[Generated]:
        """Queue the request; blocks while all slots are taken."""
        if not request.seeds or len(request.seeds) != len(request.indices):
            return _failed(
                ModelError("a request needs one seed per candidate, and one candidate", code="no_candidates")
            )
        return self._submit(request)

    def choose(self, request: Choose) -> Future[Chosen]:
        """Queue the request; blocks while all slots are taken."""
        return self._submit(request)

    def counters(self) -> Counters:
        return Counters(values=self._loop.counts())

    def close(self) -> None:
        """Fail what is in hand with `Transient` and release the device."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._loop.close()
        self._thread.join()
        if self._watchdog:
            self._watchdog.close()

    def _submit(self, request: Generate | Choose) -> Future[Any]:
        if self._closed:
            return _failed(Transient("the engine is closed; the call runs again on another worker"))
        self._slots.acquire()
        future = self._loop.submit(request)
        future.add_done_callback(lambda _: self._slots.release())
        return future


def _failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _loop(checkpoint: Checkpoint, options: DeviceOptions, device: str) -> Loop | PlainLoop:
    adapter = adapter_for(checkpoint.model, checkpoint.processor)
    if adapter is None:
        return PlainLoop(checkpoint)
    ragged = ragged_for(adapter)
    limits = limits_of(options, device, pictures=adapter.pictures is not None)
    if ragged:
        limits = replace(limits, fill_every=FILL_EVERY)
    try:
        return Loop(adapter, Encoder(checkpoint.processor), checkpoint.ends, limits, ragged=ragged)
    except PoolFull as error:
        # The first slots are taken when the loop is made.
        raise BadInput(
            f"{limits.trunk_bytes / MIB:.1f} MiB for prompts and {limits.twig_bytes / MIB:.1f} for candidates hold "
            "not one of this model; raise memory_mb",
            code="invalid_settings",
            field="memory_mb",
        ) from error


def _run(loop: Loop | PlainLoop, cores: int, die: Callable[[], None]) -> None:
    """The thread of the loop. Threads of torch are counted per thread that asks for them."""
    torch.set_num_threads(cores)
    try:
        loop.run()
    except Exception:
        # What the loop did not foresee is an error of this program: better no process than one that never answers.
        log.critical("The engine's loop ended by an error; the process ends", action="engine.lost", exc_info=True)
        die()


def limits_of(options: DeviceOptions, device: str, *, pictures: bool = True) -> Limits:
    """What may be held: candidates, prompts, pictures where they are held apart, and image features."""
    memory = options.memory_mb * MIB or _free_memory(device)
    share = PICTURE_SHARE if pictures else 0.0
    rest = memory * (0.9 - share)
    return Limits(
        rows=options.rows,
        trunks=2 * options.slots,
        pictures=options.slots,
        twig_bytes=int(rest * 0.6),
        trunk_bytes=int(rest * 0.4),
        picture_bytes=int(memory * share),
        feature_bytes=memory // 10,
        step_tokens=options.step_tokens,
        vision_batch=options.vision_batch,
        threads=options.threads,
    )


def _free_memory(device: str) -> int:
    if not device.startswith("cuda"):
        return 2048 * MIB
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * 0.85)
