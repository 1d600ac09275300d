"""The engine at the size of LLaVA-CoT on one GPU: decode against the bandwidth roofline, and whole searches.

Random weights are made on the device from the config of Llama-3.2-11B-Vision: `python -m benchmarks.engine_gpu
--bandwidth 3.35e12` on an H100, `4.8e12` on an H200. Pictures have four tiles; every candidate is `--length` tokens
long. Beside the engine run the published algorithm, one query, and plain `generate`, as many queries as fit its
memory: it holds a picture's keys and values once per candidate. Writes `benchmarks/results/engine_gpu.json`. `--tiny`
runs the same code on a CPU at a toy geometry, to see that it runs; its figures mean nothing and are not written.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.engine_baselines import Batched, Sequential
from benchmarks.engine_search import Runner
from benchmarks.engine_work import POLICY, Work
from benchmarks.gpu_decode import Decode
from benchmarks.gpu_model import build, make_large_work
from reasoning.records import Query
from workers.engine.adapters.mllama import MllamaAdapter
from workers.engine.encode import Encoder
from workers.engine.local import FILL_EVERY, DeviceOptions, limits_of
from workers.engine.loop import Loop
from workers.engine.packing import ragged_for

RESULTS = Path(__file__).parent / "results" / "engine_gpu.json"


class Bare:
    """The engine's loop in its thread, for a model that lies in no folder."""

    def __init__(self, adapter: MllamaAdapter, processor: Any, rows: int) -> None:
        options = DeviceOptions(rows=rows, threads=8)
        limits = limits_of(options, adapter.text.device.type)
        ragged = ragged_for(adapter)
        if ragged:
            limits = replace(limits, fill_every=FILL_EVERY)
        self.loop = Loop(adapter, Encoder(processor), frozenset(), limits, ragged)
        self.generate = self.choose = self.loop.submit
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the loop and give its memory back."""
        self.loop.close()
        self._thread.join()


def searches(asked: argparse.Namespace, model: Any, processor: Any, adapter: MllamaAdapter, work: Work) -> Any:
    """Seconds a query of each contender, and what the engine counted."""
    found: list[dict[str, Any]] = []
    for candidates in asked.candidates:
        gc.collect()
        if torch.cuda.is_available():
            # The engine takes its share of what is free: nothing of the last contender's may be kept.
            torch.cuda.empty_cache()
        both: dict[str, Any] = {"candidates": candidates, "judge": True}
        cell: dict[str, Any] = {"candidates": candidates, "in_flight": asked.in_flight}
        engine = Bare(adapter, processor, rows=asked.in_flight * candidates)
        runner = Runner(engine, work, **both, flight=asked.in_flight)  # type: ignore[arg-type]
        _timed(runner, work.queries[: asked.in_flight])
        before = engine.loop.counts()
        seconds = _timed(runner, work.queries[asked.in_flight : asked.in_flight + asked.queries])
        counted = {name: value - before[name] for name, value in engine.loop.counts().items()}
        engine.close()
        del engine, runner
        gc.collect()
        cell["engine"] = {"queries": asked.queries, "seconds_per_query": seconds / asked.queries}
        cell["engine"] |= {
            "tokens_per_second": counted["generated_tokens"] / seconds,
            "vision_calls_per_query": counted["vision_calls"] / asked.queries,
            "rows_per_step": counted["row_steps"] / counted["steps"],
            "milliseconds_per_step": 1e3 * seconds / counted["steps"],
            "counters": counted,
        }
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if candidates in asked.plain:
            batched = Batched(model, processor, work, **both, flight=asked.plain_flight)
            seconds = _timed(batched, work.queries[: asked.plain_flight])
            cell["batched"] = {"queries": asked.plain_flight, "seconds_per_query": seconds / asked.plain_flight}
            seconds = _timed(Sequential(model, processor, work, **both), work.queries[:1])
            cell["sequential"] = {"queries": 1, "seconds_per_query": seconds}
            for base in ("batched", "sequential"):
                times = cell[base]["seconds_per_query"] / cell["engine"]["seconds_per_query"]
                cell["engine"][f"over_{base}"] = times
        print(json.dumps(cell), file=sys.stderr, flush=True)
        found.append(cell)
    return found


def _timed(contender: Any, queries: Sequence[Query]) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        contender.run(queries)
    return time.perf_counter() - started


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_gpu", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[16, 64, 256, 512], help="candidates of a decode step")
    parser.add_argument("--bandwidth", type=float, default=4.8e12, help="bytes per second of the device")
    parser.add_argument("--text", type=int, default=400, help="prompt tokens of a decode measurement")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--candidates", type=int, nargs="*", default=[4, 10], help="of a search")
    parser.add_argument("--plain", type=int, nargs="*", default=[4], help="numbers of candidates to run plainly too")
    parser.add_argument("--plain-flight", type=int, default=12, help="queries at once of plain generate")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--queries", type=int, default=128)
    parser.add_argument("--length", type=int, default=100, help="tokens of a candidate")
    parser.add_argument("--tiny", action="store_true", help="a toy geometry on the CPU")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    model, processor = build(tiny=asked.tiny)
    adapter = MllamaAdapter(model, processor)
    policy = POLICY.with_overrides({"max_tokens": asked.length})
    found: dict[str, Any] = {
        "device": "cpu" if asked.tiny else torch.cuda.get_device_name(),
        "bandwidth": asked.bandwidth,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "length": asked.length,
        "decode": [],
    }
    for rows in asked.rows:
        with torch.inference_mode():
            found["decode"].append(Decode(model, adapter, rows, asked).run())
        print(json.dumps(found["decode"][-1]), file=sys.stderr, flush=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if asked.candidates:
        work = make_large_work(asked.in_flight + asked.queries, policy, 2 * model.config.vision_config.image_size)
        found["searches"] = searches(asked, model, processor, adapter, work)
    if not asked.tiny:
        asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
