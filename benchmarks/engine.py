"""Queries per hour on the same weights: the published algorithm, plain `generate`, and this engine.

Run with `make bench-engine` or `python -m benchmarks.engine`. Every cell is the median of several repeats, the
contenders taking turns within a repeat, so that other load on the machine hits all alike. Writes
`benchmarks/results/engine.json` and `.svg`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.engine_baselines import Batched, Sequential
from benchmarks.engine_plot import plot
from benchmarks.engine_search import Runner
from benchmarks.engine_work import Work, make_work
from workers.engine.protocol import Engine
from workers.engine.random_model import Geometry, make_mllama
from workers.engine.registry import open_engine

RESULTS = Path(__file__).parent / "results"
WORDS = 240


class Bench:
    """One machine, one set of weights, a grid of settings."""

    def __init__(self, folder: Path, *, repeats: int, seconds: float, dtype: str) -> None:
        self._folder, self._repeats, self._seconds, self._dtype = folder, repeats, seconds, dtype
        self._model = AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        self._processor = AutoProcessor.from_pretrained(folder)
        self._work = make_work(512, WORDS)
        self._cursor = 0

    def cell(self, candidates: int, flight: int, orders: int) -> dict[str, Any]:
        """Queries per hour of all contenders at one setting."""
        judge = orders > 0
        runs: dict[str, list[dict[str, float]]] = {}
        for _ in range(self._repeats):
            for name, make in self._contenders(candidates, flight, judge):
                runs.setdefault(name, []).append(self._time(name, make, flight))
        cell: dict[str, Any] = {"candidates": candidates, "in_flight": flight, "judge": judge}
        for name, found in runs.items():
            cell[name] = {key: statistics.median(run[key] for run in found) for key in found[0]}
            cell[name]["spread"] = _spread([run["queries_per_hour"] for run in found])
        for name in runs:
            if name.startswith("engine"):
                cell[name]["over_sequential"] = _ratio(cell, name, "sequential")
                cell[name]["over_batched"] = _ratio(cell, name, "batched")
        return cell

    def _contenders(
        self, candidates: int, flight: int, judge: bool
    ) -> Iterator[tuple[str, Callable[[Work], tuple[Any, Engine | None]]]]:
        both: dict[str, Any] = {"candidates": candidates, "judge": judge}

        def engine(orders: int) -> Callable[[Work], tuple[Any, Engine | None]]:
            def make(work: Work) -> tuple[Any, Engine | None]:
                opened = open_engine(str(self._folder), {"device": "cpu", "dtype": self._dtype, "slots": 1024})
                return Runner(opened, work, candidates=candidates, orders=orders, flight=flight), opened

            return make

        yield "sequential", lambda work: (Sequential(self._model, self._processor, work, **both), None)
        yield "batched", lambda work: (Batched(self._model, self._processor, work, flight=flight, **both), None)
        yield "engine", engine(1 if judge else 0)
        if judge:
            yield "engine, both orders", engine(2)

    def _time(self, name: str, make: Callable[[Work], tuple[Any, Engine | None]], flight: int) -> dict[str, float]:
        """One run of about the wanted seconds, after a warm-up of the same shape."""
        runner, engine = make(self._work)
        few = 1 if name == "sequential" else flight
        gc.collect()
        with torch.inference_mode():
            runner.run(self._take(few))
            vision = engine.counters().values["vision_calls"] if engine else 0.0
            done, started, burned = 0, time.perf_counter(), time.process_time()
            while time.perf_counter() - started < self._seconds:
                batch = self._take(few if name in ("sequential", "batched") else 3 * flight)
                runner.run(batch)
                done += len(batch)
        wall, cpu = time.perf_counter() - started, time.process_time() - burned
        found = {"queries_per_hour": 3600 * done / wall, "queries_per_cpu_hour": 3600 * done / cpu}
        if engine:
            values = engine.counters().values
            found["vision_calls_per_query"] = (values["vision_calls"] - vision) / done
            found["mean_rows"] = values["row_steps"] / values["steps"]
            found["cached_share"] = values["cached_tokens"] / values["prompt_tokens"]
            engine.close()
        return found

    def _take(self, count: int) -> Any:
        """Queries not used lately, so that nothing is found in a cache by luck."""
        queries = self._work.queries
        taken = [queries[(self._cursor + i) % len(queries)] for i in range(count)]
        self._cursor += count
        return taken


def _ratio(cell: dict[str, Any], name: str, base: str) -> dict[str, float]:
    return {key: cell[name][key] / cell[base][key] for key in ("queries_per_hour", "queries_per_cpu_hour")}


def _spread(values: list[float]) -> float:
    """Half of the range over the median."""
    return (max(values) - min(values)) / 2 / statistics.median(values)


def environment(threads: int) -> dict[str, Any]:
    """Where and with what this was measured."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": threads,
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main() -> None:
    """Parse the command line, run the grid, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="", help="model folder; default: random weights of the demo's geometry")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of every run")
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 4, 10])
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--judge", type=int, nargs="+", default=[1, 0], help="1 with the judge, 0 without")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=RESULTS / "engine.json")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    transformers.utils.logging.disable_progress_bar()
    found: dict[str, Any] = {"environment": environment(asked.threads), "dtype": asked.dtype, "cells": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(asked.model) if asked.model else make_mllama(Path(temporary), Geometry(words=WORDS))
        found["model"] = asked.model or "random weights, geometry of the demo model"
        bench = Bench(folder, repeats=asked.repeats, seconds=asked.seconds, dtype=asked.dtype)
        for judge in asked.judge:
            for candidates in asked.candidates:
                for flight in asked.in_flight:
                    if candidates == 1 and judge:
                        continue
                    cell = bench.cell(candidates, flight, judge)
                    found["cells"].append(cell)
                    print(json.dumps(cell), file=sys.stderr, flush=True)
    asked.out.parent.mkdir(exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1) + "\n")
    plot(found, asked.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
