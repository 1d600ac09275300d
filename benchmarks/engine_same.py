"""How often a candidate is the same alone and in a full batch: the demo model's whole texts, token by token.

Each candidate is drawn twice from its seed: in one batch with all others, and as the only row of an engine that has
nothing else in hand. Run `python -m benchmarks.engine_same`; the result goes to `benchmarks/results/engine_same.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine import digest, environment
from benchmarks.engine_work import POLICY, Work, ask, make_work
from reasoning import seeds
from reasoning.records import Query
from reasoning.stages import Stage
from workers.asks import sampling
from workers.engine.protocol import Generate
from workers.engine.registry import demo_folder, open_engine

RESULT = Path(__file__).parent / "results" / "engine_same.json"


def main() -> None:
    """Draw all candidates both ways, compare, write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_same", description=__doc__)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    work = make_work(asked.queries)
    together = draw(work, range(asked.candidates))
    alone = [one for k in range(asked.candidates) for one in draw(work, [k], in_turn=True)]
    same = sum(ids == alone[place] for place, ids in enumerate(_by_seed(together, asked.candidates)))
    report = {
        "what": "candidates of whole texts whose tokens are the same alone and in one batch with all others",
        "candidates": len(alone),
        "tokens": sum(map(len, alone)),
        "same": same,
        "rate": same / len(alone),
        "rows_together": len(alone),
        "model": f"demo model {digest(demo_folder())}",
        "dtype": "float32",
        "environment": environment(),
    }
    asked.out.parent.mkdir(exist_ok=True)
    asked.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def draw(work: Work, which: Sequence[int], *, in_turn: bool = False) -> list[tuple[int, ...]]:
    """The token ids of candidates `which` of every query, query by query; `in_turn`: one request at a time."""
    # In one process, so that all are in one batch.
    engine = open_engine("demo", {"device": "cpu", "slots": 1024, "apart": False})
    try:
        futures: list[Any] = []
        for query in work.queries:
            futures.append(engine.generate(_request(work, query, which)))
            if in_turn:
                futures[-1].result()
        return [candidate.token_ids for future in futures for candidate in future.result().candidates]
    finally:
        engine.close()


def _request(work: Work, query: Query, which: Sequence[int]) -> Generate:
    return Generate(
        call_id=query.custom_id,
        prompt=ask(query, ""),
        load_image=work.pictures.__getitem__,
        group=query.custom_id,
        indices=tuple(which),
        seeds=tuple(seeds.candidate(0, query.custom_id, Stage.SUMMARY, 0, k) for k in which),
        stop=Stage.CONCLUSION.close_tag,
        sampling=sampling(POLICY),
    )


def _by_seed(found: Sequence[tuple[int, ...]], candidates: int) -> list[tuple[int, ...]]:
    """From query by query to candidate by candidate."""
    return [ids for k in range(candidates) for ids in found[k::candidates]]


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
