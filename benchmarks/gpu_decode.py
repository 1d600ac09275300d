"""Pure decode steps of the engine, against the time that their bytes take at the bandwidth of the device."""

from __future__ import annotations

import argparse
import time
from concurrent.futures import Future
from typing import Any

import torch

from reasoning.prompts import Prompt
from workers.engine.adapters.base import Features, ImageInput
from workers.engine.adapters.mllama import MllamaAdapter
from workers.engine.admission import Admission, Limits
from workers.engine.counting import Tally
from workers.engine.device import Device
from workers.engine.jobs import Job
from workers.engine.packing import ragged_for
from workers.engine.preparing import FeatureCache
from workers.engine.protocol import Generate, Sampling

GIB = 1 << 30
CANDIDATES = 10
"""Of a query: they share its text and picture."""
WARM_UP = 40
"""Steps before the clock runs: slots grow and steps are recorded in them, once in the life of an engine."""


class Decode:
    """Pure decode steps with `rows` candidates in flight, after all prompts are in."""

    def __init__(self, model: Any, adapter: MllamaAdapter, rows: int, asked: argparse.Namespace) -> None:
        self._adapter, self._asked, self._config = adapter, asked, model.config
        self._queries = -(-rows // CANDIDATES)
        self._weights = sum(p.numel() * p.itemsize for p in model.model.language_model.layers.parameters())
        self._weights += model.lm_head.weight.numel() * model.lm_head.weight.itemsize
        self._device = model.lm_head.weight.device
        vision = model.config.vision_config
        self._positions = vision.max_num_tiles * ((vision.image_size // vision.patch_size) ** 2 + 1)
        limits = Limits(
            rows=rows, trunks=self._queries, pictures=self._queries, trunk_bytes=16 * GIB, twig_bytes=48 * GIB,
            picture_bytes=24 * GIB, feature_bytes=8 * GIB, step_tokens=8192, vision_batch=1, threads=1,
        )  # fmt: skip
        tally = Tally()
        self._features = FeatureCache(limits.feature_bytes)
        self._admission = Admission(adapter, self._features, limits, tally)
        self._forward = Device(adapter, self._admission, tally, ragged_for(adapter))

    def run(self) -> dict[str, Any]:
        """Tokens per second and the share of the roofline."""
        jobs = [self._job(place) for place in range(self._queries)]
        while waiting := [job for job in jobs if job.trunk is None]:
            for job in waiting:
                self._admission.admit(job, job.layout)  # type: ignore[arg-type]
            self._forward.forward()
        for job in jobs:
            self._admission.start_rows(job, 0.0)
        self._draw()
        for _ in range(WARM_UP):
            self._step()
        self._wait()
        started = time.perf_counter()
        for _ in range(self._asked.steps):
            self._step()
        self._wait()
        return self._report((time.perf_counter() - started) / self._asked.steps)

    def _report(self, seconds: float) -> dict[str, Any]:
        adapter, live = self._adapter, self._admission.twigs.active
        text = adapter.text.position_bytes * (
            self._queries * self._asked.text + live * (WARM_UP + self._asked.steps / 2)
        )
        pictures = adapter.pictures.position_bytes * self._queries * self._positions if adapter.pictures else 0
        floor = (self._weights + text + pictures) / self._asked.bandwidth
        cuda = self._device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "rows": live,
            "step_ms": seconds * 1e3,
            "tokens_per_s": self._admission.running / seconds,
            "roofline_ms": floor * 1e3,
            "share_of_roofline": floor / seconds,
            "memory_gib": torch.cuda.max_memory_allocated() / GIB if cuda else None,
        }

    def _job(self, place: int) -> Job:
        asked, text = self._asked, self._config.text_config
        image = f"image{place}"
        values = torch.randn(self._positions, text.hidden_size, device=self._device, dtype=self._adapter.text.dtype)
        self._features.put(image, Features(values, len(values)), ImageInput({}))
        words = torch.randint(3, self._config.image_token_index, (asked.text - 2,))
        ids = [text.bos_token_id, self._config.image_token_index, *words.tolist()]
        layout = self._adapter.lay_out(ids, [image], [])
        request = Generate(
            call_id=str(place), prompt=Prompt(()), load_image=lambda _: b"", group=str(place),
            indices=tuple(range(CANDIDATES)), seeds=tuple(range(CANDIDATES)), stop="",
            sampling=Sampling(temperature=0.6, top_p=0.9, top_k=50, max_tokens=2048),
        )  # fmt: skip
        job = Job(request=request, future=Future(), layout=layout)
        job.waiting = [(k, k + place * CANDIDATES) for k in range(CANDIDATES)]
        return job

    def _step(self) -> None:
        self._forward.forward()
        self._draw()

    def _draw(self) -> None:
        rows = self._admission.twigs.in_use
        for row, drawn in zip(rows, self._forward.draw(rows), strict=True):
            for part, token in self._admission.part(row, drawn, 0.0):
                part.tokens.append(token)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
