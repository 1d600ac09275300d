"""Decode speed at the 11B geometry on one GPU, against the bandwidth roofline. Ready, not yet measured.

Random weights are made on the device from the config of Llama-3.2-11B-Vision. Run on a machine with an H100 or H200:
`python -m benchmarks.engine_gpu --rows 64 256 512 --bandwidth 4.8e12`. Prints one JSON line per batch size.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import Future
from typing import Any

import torch
from transformers import MllamaConfig, MllamaForConditionalGeneration

from reasoning.prompts import Prompt
from workers.engine.adapters.base import Features, Layout
from workers.engine.adapters.mllama import MllamaAdapter
from workers.engine.admission import Admission, Limits
from workers.engine.counting import Tally
from workers.engine.device import Device
from workers.engine.jobs import Job
from workers.engine.preparing import FeatureCache
from workers.engine.protocol import Generate, Sampling

GIB = 1 << 30
TILES, PATCHES = 4, 1601


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64, 256, 512])
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--text", type=int, default=400, help="prompt tokens")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--bandwidth", type=float, default=4.8e12, help="bytes per second of the device")
    asked = parser.parse_args()
    torch.set_default_device("cuda")
    torch.set_default_dtype(torch.bfloat16)
    model = MllamaForConditionalGeneration(MllamaConfig()).eval().requires_grad_(False)
    torch.set_default_device("cpu")
    adapter = MllamaAdapter(model, processor=None)
    for rows in asked.rows:
        with torch.inference_mode():
            print(json.dumps(measure(adapter, rows, asked)), flush=True)


def measure(adapter: MllamaAdapter, rows: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of pure decode steps with `rows` candidates in flight."""
    queries = -(-rows // asked.candidates)
    limits = Limits(
        rows=rows, trunks=queries, pictures=queries, trunk_bytes=16 * GIB, twig_bytes=48 * GIB,
        picture_bytes=24 * GIB, feature_bytes=8 * GIB, step_tokens=8192, vision_batch=1, threads=1,
    )  # fmt: skip
    features, tally = FeatureCache(limits.feature_bytes), Tally()
    admission = Admission(adapter, features, None, limits, tally)  # type: ignore[arg-type]
    device = Device(adapter, admission, tally)
    jobs = [_job(adapter, features, place, asked) for place in range(queries)]
    for job in jobs:
        admission.admit(job, job.layout)  # type: ignore[arg-type]
    device.forward()
    for job in jobs:
        admission.start_rows(job, 0.0)
    for _ in range(4):
        _step(device, admission)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(asked.steps):
        _step(device, admission)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / asked.steps
    live = admission.twigs.active
    weights = 18.4e9
    text = adapter.text.position_bytes * (queries * asked.text + live * asked.steps / 2)
    pictures = adapter.pictures.position_bytes * queries * TILES * PATCHES if adapter.pictures else 0
    floor = (weights + text + pictures) / asked.bandwidth
    return {
        "device": torch.cuda.get_device_name(),
        "rows": live,
        "step_ms": seconds * 1e3,
        "tokens_per_s": live / seconds,
        "roofline_ms": floor * 1e3,
        "share_of_roofline": floor / seconds,
        "memory_gib": torch.cuda.max_memory_allocated() / GIB,
    }


def _job(adapter: MllamaAdapter, features: FeatureCache, place: int, asked: argparse.Namespace) -> Job:
    image = f"image{place}"
    values = torch.randn(TILES * PATCHES, 4096, device="cuda", dtype=torch.bfloat16)
    features.put(image, Features(values, len(values)), adapter_stub())
    ids = [128000, 128256, *(int(i) for i in torch.randint(0, 128000, (asked.text - 2,)))]
    layout: Layout = adapter.lay_out(ids, [image], [])
    request = Generate(
        call_id=str(place), prompt=Prompt(()), load_image=lambda _: b"", group=str(place),
        indices=tuple(range(asked.candidates)), seeds=tuple(range(asked.candidates)), stop="",
        sampling=Sampling(temperature=0.6, top_p=0.9, top_k=50, max_tokens=2048),
    )  # fmt: skip
    job = Job(request=request, future=Future(), layout=layout)
    job.waiting = [(k, k) for k in range(asked.candidates)]
    return job


def adapter_stub() -> Any:
    """What the feature cache keeps beside the features."""
    from workers.engine.adapters.base import ImageInput

    return ImageInput({})


def _step(device: Device, admission: Admission) -> None:
    if admission.twigs.in_use and admission.twigs.in_use[0].tokens:
        device.forward()
    rows = admission.twigs.in_use
    for row, token in zip(rows, device.draw(rows), strict=True):
        row.tokens.append(token)


if __name__ == "__main__":
    main()
