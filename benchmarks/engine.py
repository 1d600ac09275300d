"""Queries per hour with the demo model's weights: the published algorithm, plain `generate`, and this engine.

Run with `make bench-engine` or `python -m benchmarks.engine`; `--candidates 4 --in-flight 64 --judge 1` is the headline
alone, and `--keep` adds such a part to the result that is there. Every cell is the median of several repeats, the
contenders taking turns within a repeat, so that other load on the machine hits all alike. Writes
`benchmarks/results/engine.json` and `.svg`.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.engine_baselines import Batched, Sequential
from benchmarks.engine_plot import plot
from benchmarks.engine_search import Runner
from benchmarks.engine_work import POLICY, make_work
from benchmarks.search_in_process import InProcess
from reasoning.records import Query
from workers.engine.protocol import Engine
from workers.engine.registry import demo_folder, open_engine

RESULTS = Path(__file__).parent / "results"
QUERIES = 1024
IN_TURN = 3
"""Queries of one run of the engine, as a multiple of those in flight: start and end of a run count in full."""


class Contender(Protocol):
    def run(self, queries: Sequence[Query]) -> Any: ...


class Service:
    """The product's own search: `plan()`, both orders of every pair, equal candidates merged before judging."""

    def __init__(self, engine: Engine, pictures: Any, candidates: int, flight: int) -> None:
        self._policy = POLICY.with_overrides({"candidates": candidates})
        self._searches = InProcess(engine, pictures.__getitem__, flight=flight)

    def run(self, queries: Sequence[Query]) -> None:
        self._searches.run(self._policy, queries)


class Bench:
    """One machine, one set of weights, a grid of settings."""

    def __init__(self, folder: Path, *, repeats: int, seconds: float) -> None:
        self._folder, self._repeats, self._seconds = folder, repeats, seconds
        self._model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self._processor = AutoProcessor.from_pretrained(folder)
        self._work = make_work(QUERIES)
        self._cursor = 0

    def cells(self, candidates: int, judge: bool, flights: Sequence[int]) -> list[dict[str, Any]]:
        """One cell per number in flight; the sequential contender, which has one, is measured once for all."""
        runs: dict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
        for _ in range(self._repeats):
            plain = Sequential(self._model, self._processor, self._work, candidates=candidates, judge=judge)
            alone = self._plain(plain, 1)
            for flight in flights:
                runs[flight, "sequential"].append(alone)
                for name, run in self._contenders(candidates, judge, flight).items():
                    runs[flight, name].append(run())
        return [_cell(candidates, judge, flight, runs) for flight in flights]

    def _contenders(self, candidates: int, judge: bool, flight: int) -> dict[str, Callable[[], dict[str, float]]]:
        both: dict[str, Any] = {"candidates": candidates, "judge": judge, "flight": flight}
        pictures = self._work.pictures
        found: dict[str, Callable[[], dict[str, float]]] = {
            "batched": lambda: self._plain(Batched(self._model, self._processor, self._work, **both), flight),
            "engine": partial(self._engine, lambda engine: Runner(engine, self._work, **both), flight),
        }
        if judge:
            found["service"] = partial(
                self._engine, lambda engine: Service(engine, pictures, candidates, flight), flight
            )
        return found

    def _plain(self, contender: Sequential | Batched, flight: int) -> dict[str, float]:
        with torch.inference_mode():
            contender.run(self._take(1))
            contender.tokens = 0
            found = self._timed(contender, flight)
        return found | {"tokens_per_query": contender.tokens / found["queries"]}

    def _engine(self, make: Callable[[Engine], Contender], flight: int) -> dict[str, float]:
        engine = open_engine(str(self._folder), {"device": "cpu", "slots": 1024})
        try:
            contender = make(engine)
            contender.run(self._take(flight))
            before = engine.counters().values
            found = self._timed(contender, IN_TURN * flight)
            after = engine.counters().values
        finally:
            engine.close()
        done = {name: after[name] - before.get(name, 0.0) for name in after}
        return found | {
            "tokens_per_query": done["generated_tokens"] / found["queries"],
            "vision_calls_per_image": done["vision_calls"] / found["queries"],
            "rows_per_step": done["row_steps"] / done["steps"],
            "cached_share_of_prompts": done["cached_tokens"] / done["prompt_tokens"],
        }

    def _timed(self, contender: Contender, at_once: int) -> dict[str, float]:
        """Whole runs of `at_once` queries until the wanted seconds are over."""
        gc.collect()
        done, started, burned = 0, time.perf_counter(), time.process_time()
        while not done or time.perf_counter() - started < self._seconds:
            contender.run(self._take(at_once))
            done += at_once
        wall, cpu = time.perf_counter() - started, time.process_time() - burned
        return {"queries": done, "queries_per_hour": 3600 * done / wall, "queries_per_cpu_hour": 3600 * done / cpu}

    def _take(self, count: int) -> list[Query]:
        """Queries not used lately, so that nothing is found in a cache by luck."""
        queries = self._work.queries
        taken = [queries[(self._cursor + i) % len(queries)] for i in range(count)]
        self._cursor += count
        return taken


def _cell(
    candidates: int, judge: bool, flight: int, runs: dict[tuple[int, str], list[dict[str, float]]]
) -> dict[str, Any]:
    cell: dict[str, Any] = {"candidates": candidates, "in_flight": flight, "judge": judge}
    for (at, name), found in runs.items():
        if at == flight:
            cell[name] = {key: statistics.median(run[key] for run in found) for key in found[0]}
            cell[name]["spread"] = _spread([run["queries_per_hour"] for run in found])
    for name in ("engine", "service"):
        for base in ("sequential", "batched"):
            if name in cell:
                cell[name][f"over_{base}"] = {
                    key: cell[name][key] / cell[base][key] for key in ("queries_per_hour", "queries_per_cpu_hour")
                }
    return cell


def _spread(values: list[float]) -> float:
    """Half of the range over the median."""
    return (max(values) - min(values)) / 2 / statistics.median(values)


def environment() -> dict[str, Any]:
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
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def main() -> None:
    """Parse the command line, run the grid, write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of every run, at least")
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 4, 10])
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--judge", type=int, nargs="+", default=[1, 0], help="1 with the judge, 0 without")
    parser.add_argument("--keep", action="store_true", help="keep the other cells of an earlier run")
    parser.add_argument("--out", type=Path, default=RESULTS / "engine.json")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    folder = demo_folder()
    found: dict[str, Any] = {"model": f"demo model {_digest(folder)}", "dtype": "float32", "cells": []}
    if asked.keep and asked.out.is_file():
        found["cells"] = json.loads(asked.out.read_text())["cells"]
    found["environment"] = environment()
    bench = Bench(folder, repeats=asked.repeats, seconds=asked.seconds)
    grid = [(judge, candidates) for judge in asked.judge for candidates in asked.candidates]
    for judge, candidates in grid:
        if judge and candidates == 1:
            continue
        for cell in bench.cells(candidates, bool(judge), asked.in_flight):
            found["cells"] = [*(old for old in found["cells"] if _place(old) != _place(cell)), cell]
            print(json.dumps(cell), file=sys.stderr, flush=True)
        found["cells"].sort(key=_place)
        asked.out.parent.mkdir(exist_ok=True)
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
        plot(found, asked.out.with_suffix(".svg"))


def _place(cell: dict[str, Any]) -> tuple[bool, int, int]:
    return not cell["judge"], cell["candidates"], cell["in_flight"]


if __name__ == "__main__":
    main()
