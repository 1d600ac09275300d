"""Queries per hour with the demo model's weights: the published algorithm, plain `generate`, and this engine.

Run with `make bench-engine` or `python -m benchmarks.engine`; `--candidates 4 --in-flight 64 --judge 1` is the headline
alone, and `--keep` adds such a part to the result that is there. Every figure is the median of up to `--rounds` runs,
the contenders taking turns within a round, so that other load on the machine hits all alike; a contender that has had
`--seconds` in its cell sits out the rounds that are left. A run is 2 queries of the published algorithm, one batch in
lock step of plain `generate`, and twice the queries in flight of the engine: rates are queries over time, and the
number of runs and queries stands beside each. Writes `benchmarks/results/engine.json` and `.svg`.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil
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
IN_TURN = 2
"""Queries of one run of the engine, as a multiple of those in flight: start and end of a run count in full."""
ONE_BY_ONE = 2
"""Queries of one run of the sequential contender."""
PLAIN = ("sequential", "batched")
"""Those that run without the engine."""


class Contender(Protocol):
    def run(self, queries: Sequence[Query]) -> Any: ...


Place = tuple[int, str]
"""Queries in flight, and the name of the contender."""
Runs = dict[Place, list[dict[str, float]]]


class Service:
    """The product's own search: `plan()`, both orders of every pair, equal candidates merged before judging."""

    def __init__(self, engine: Engine, pictures: Any, candidates: int, flight: int) -> None:
        self._policy = POLICY.with_overrides({"candidates": candidates})
        self._searches = InProcess(engine, pictures.__getitem__, flight=flight)

    def run(self, queries: Sequence[Query]) -> None:
        self._searches.run(self._policy, queries)


class Bench:
    """One machine, one set of weights, a grid of settings."""

    def __init__(self, folder: Path, *, rounds: int, seconds: float) -> None:
        """Up to `rounds` runs of each contender, none begun after it had `seconds` in its cell."""
        self._folder, self._rounds, self._seconds = folder, rounds, seconds
        self._model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self._processor = AutoProcessor.from_pretrained(folder)
        self._work = make_work(QUERIES)
        self._cursor = 0

    def cells(self, candidates: int, judge: bool, flights: Sequence[int]) -> list[dict[str, Any]]:
        """One cell per number in flight; the sequential contender, which has one, is measured once for all."""
        load = os.getloadavg()[0]
        engine = open_engine(str(self._folder), {"device": "cpu", "slots": 1024})
        try:
            runs = self._in_turn(engine, self._contenders(engine, candidates, judge, flights))
        finally:
            engine.close()
        place = {"candidates": candidates, "judge": judge, "load_before": load}
        return [_cell(place | {"in_flight": flight}, runs) for flight in flights]

    def _in_turn(self, engine: Engine, contenders: dict[Place, Contender]) -> Runs:
        """Rounds of runs: within a round every contender that has time left runs once."""
        runs: Runs = defaultdict(list)
        for (flight, name), contender in contenders.items():
            if name != "service":
                self._answer(contender, flight if name == "engine" else 1)
        for _ in range(self._rounds):
            for place, contender in contenders.items():
                if sum(run["seconds"] for run in runs[place]) < self._seconds:
                    runs[place].append(self._run(engine, contender, *place))
        return runs

    def _contenders(
        self, engine: Engine, candidates: int, judge: bool, flights: Sequence[int]
    ) -> dict[Place, Contender]:
        """By number in flight and name; the sequential one stands at 1."""
        plain = (self._model, self._processor, self._work)
        both: dict[str, Any] = {"candidates": candidates, "judge": judge}
        found: dict[Place, Contender] = {(1, "sequential"): Sequential(*plain, **both)}
        for flight in flights:
            found[flight, "batched"] = Batched(*plain, **both, flight=flight)
            found[flight, "engine"] = Runner(engine, self._work, **both, flight=flight)
            if judge:
                found[flight, "service"] = Service(engine, self._work.pictures, candidates, flight)
        return found

    def _run(self, engine: Engine, contender: Contender, flight: int, name: str) -> dict[str, float]:
        """One timed run: as many queries as fill the contender a few times over."""
        count = {"sequential": ONE_BY_ONE, "batched": flight}.get(name, IN_TURN * flight)
        gc.collect()
        plain = contender if isinstance(contender, Sequential | Batched) else None
        before, tokens = engine.counters().values, plain.tokens if plain else 0
        started, burned = time.perf_counter(), cpu_seconds()
        self._answer(contender, count)
        wall, cpu = time.perf_counter() - started, cpu_seconds() - burned
        done = {key: value - before.get(key, 0.0) for key, value in engine.counters().values.items()}
        drawn = plain.tokens - tokens if plain else done["generated_tokens"]
        found = {
            "queries": count,
            "seconds": wall,
            "queries_per_hour": 3600 * count / wall,
            "queries_per_cpu_hour": 3600 * count / cpu,
            "tokens_per_query": drawn / count,
        }
        if not plain:
            found["vision_calls_per_image"] = done["vision_calls"] / count
            found["rows_per_step"] = done["row_steps"] / done["steps"]
            found["cached_share_of_prompts"] = done["cached_tokens"] / done["prompt_tokens"]
        return found

    def _answer(self, contender: Contender, count: int) -> None:
        """Have the contender answer queries not used lately, so that nothing is found in a cache by luck."""
        queries = self._work.queries
        taken = [queries[(self._cursor + i) % len(queries)] for i in range(count)]
        self._cursor += count
        with torch.inference_mode():
            contender.run(taken)


def _cell(place: dict[str, Any], runs: Runs) -> dict[str, Any]:
    cell = dict(place)
    for (flight, name), found in runs.items():
        if flight == place["in_flight"] or name == "sequential":
            cell[name] = {"runs": len(found)}
            cell[name] |= {key: statistics.median(run[key] for run in found) for key in found[0]}
            cell[name]["spread"] = _spread([run["queries_per_hour"] for run in found])
    for name in ("engine", "service"):
        for base in PLAIN:
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


def cpu_seconds() -> float:
    """Used so far by this process and those that it started and that still run."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(float(found.user + found.system) for found in times)


def digest(folder: Path) -> str:
    """Which weights these are."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def main() -> None:
    """Parse the command line, run the grid, write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="after which a contender runs no more in a cell")
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
    found: dict[str, Any] = {"model": f"demo model {digest(folder)}", "dtype": "float32", "cells": []}
    found["environment"] = environment()
    if asked.keep and asked.out.is_file():
        found["cells"] = _kept(json.loads(asked.out.read_text()), found)
    bench = Bench(folder, rounds=asked.rounds, seconds=asked.seconds)
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


def _kept(earlier: dict[str, Any], now: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells of an earlier run, which must have been of the same model on the same machine."""
    parts = (earlier | earlier["environment"], now | now["environment"])
    for name in ("model", "cpu", "cores", "threads", "python", "torch", "transformers"):
        if parts[0][name] != parts[1][name]:
            raise SystemExit(f"cannot keep cells of another {name}: {parts[0][name]}, now {parts[1][name]}")
    cells: list[dict[str, Any]] = earlier["cells"]
    return cells


def _place(cell: dict[str, Any]) -> tuple[bool, int, int]:
    return not cell["judge"], cell["candidates"], cell["in_flight"]


if __name__ == "__main__":
    main()
