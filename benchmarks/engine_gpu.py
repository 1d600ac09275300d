"""Decode speed at the 11B geometry on one GPU, against the bandwidth roofline. Ready, not yet measured.

Random weights are made on the device from the config of Llama-3.2-11B-Vision. Run on a machine with an H100 or H200:
`python -m benchmarks.engine_gpu --rows 64 256 512 --bandwidth 4.8e12`. Prints one JSON line per batch size.
`--tiny` runs the same code on a CPU at a toy geometry, to see that it runs; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import Future
from typing import Any

import torch
from transformers import MllamaConfig, MllamaForConditionalGeneration
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig

from reasoning.prompts import Prompt
from workers.engine.adapters.base import Features, ImageInput
from workers.engine.adapters.mllama import MllamaAdapter
from workers.engine.admission import Admission, Limits
from workers.engine.counting import Tally
from workers.engine.device import Device
from workers.engine.jobs import Job
from workers.engine.preparing import FeatureCache
from workers.engine.protocol import Generate, Sampling

GIB = 1 << 30


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_gpu", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64, 256, 512])
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--text", type=int, default=400, help="prompt tokens")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--bandwidth", type=float, default=4.8e12, help="bytes per second of the device")
    parser.add_argument("--tiny", action="store_true", help="a toy geometry on the CPU")
    asked = parser.parse_args()
    device = "cpu" if asked.tiny else "cuda"
    with torch.device(device):
        torch.set_default_dtype(torch.float32 if asked.tiny else torch.bfloat16)
        model = MllamaForConditionalGeneration(tiny() if asked.tiny else MllamaConfig()).eval().requires_grad_(False)
    adapter = MllamaAdapter(model, processor=None)
    for rows in asked.rows:
        with torch.inference_mode():
            print(json.dumps(Measurement(model, adapter, rows, asked).run()), flush=True)


def tiny() -> MllamaConfig:
    """A geometry for any machine."""
    text = MllamaTextConfig(
        vocab_size=500, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, cross_attention_layers=[1, 3], pad_token_id=0, max_position_embeddings=1024,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    vision = MllamaVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_global_layers=1, attention_heads=2,
        image_size=32, patch_size=8, max_num_tiles=4, intermediate_layers_indices=[0], vision_output_dim=64,
    )  # fmt: skip
    return MllamaConfig(text_config=text, vision_config=vision, image_token_index=500)


class Measurement:
    """Pure decode steps with `rows` candidates in flight, after all prompts are in."""

    def __init__(self, model: Any, adapter: MllamaAdapter, rows: int, asked: argparse.Namespace) -> None:
        self._adapter, self._asked, self._config = adapter, asked, model.config
        self._queries = -(-rows // asked.candidates)
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
        self._admission = Admission(adapter, self._features, None, limits, tally)  # type: ignore[arg-type]
        self._forward = Device(adapter, self._admission, tally)

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
        for _ in range(4):
            self._step()
        self._wait()
        started = time.perf_counter()
        for _ in range(self._asked.steps):
            self._step()
        self._wait()
        return self._report((time.perf_counter() - started) / self._asked.steps)

    def _report(self, seconds: float) -> dict[str, Any]:
        adapter, live = self._adapter, self._admission.twigs.active
        text = adapter.text.position_bytes * (self._queries * self._asked.text + live * self._asked.steps / 2)
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
        values = torch.randn(self._positions, text.hidden_size, device=self._device, dtype=torch.get_default_dtype())
        self._features.put(image, Features(values, len(values)), ImageInput({}))
        words = torch.randint(3, text.vocab_size, (asked.text - 2,))
        ids = [text.bos_token_id, self._config.image_token_index, *words.tolist()]
        layout = self._adapter.lay_out(ids, [image], [])
        request = Generate(
            call_id=str(place), prompt=Prompt(()), load_image=lambda _: b"", group=str(place),
            indices=tuple(range(asked.candidates)), seeds=tuple(range(asked.candidates)), stop="",
            sampling=Sampling(temperature=0.6, top_p=0.9, top_k=50, max_tokens=2048),
        )  # fmt: skip
        job = Job(request=request, future=Future(), layout=layout)
        job.waiting = [(k, k + place * asked.candidates) for k in range(asked.candidates)]
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


if __name__ == "__main__":
    main()
