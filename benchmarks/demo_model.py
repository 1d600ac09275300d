"""What the demo model can do, on scenes it never saw: alone, with search, and as a judge.

Run with `make bench-demo` or `python -m benchmarks.demo_model`. Questions come from the split `test`, pairs for the
judge from the split `valid`. Writes `benchmarks/results/demo_model.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from PIL import Image

from benchmarks.search_in_process import InProcess, Searched
from evaluation.extract import Expected, agrees
from evaluation.score import wilson
from reasoning.decisions import Answer
from reasoning.policy import Policy
from reasoning.prompts import compare_prompt
from reasoning.records import Query
from reasoning.stages import STAGES, Stage
from training.scenes import teacher
from training.scenes.files import scenes
from training.scenes.questions import Question
from training.scenes.render import render
from training.scenes.world import Level, Scene
from training.small.model import SETTINGS
from training.small.pairs import pair
from training.small.rows import as_query, sample
from workers.engine.protocol import Choose, Engine
from workers.engine.registry import open_engine

RESULTS = Path(__file__).parent / "results"
JUDGED: tuple[str, ...] = tuple(STAGES)
"""Stages whose fresh pairs the judge is tried on, the same number of each."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One held-out question."""

    query: Query
    scene: Scene
    question: Question

    def right(self, conclusion: str) -> bool:
        """Whether a conclusion is the known answer."""
        return agrees(conclusion, Expected(self.question.answer, self.question.choices))


class Held:
    """Held-out questions and their pictures."""

    def __init__(self, seed: int, count: int, level: Level) -> None:
        self.pictures: dict[str, bytes] = {}
        self.asked: list[Asked] = []
        for index, (scene, question) in enumerate(scenes(seed, count, level)):
            query = as_query(question, f"test-{index:06d}", self.picture(scene))
            self.asked.append(Asked(query, scene, question))

    def picture(self, scene: Scene) -> str:
        """Render a scene and keep it; its content hash."""
        buffer = io.BytesIO()
        Image.fromarray(render(scene)).save(buffer, "PNG")
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        self.pictures[digest] = buffer.getvalue()
        return digest


def measure(engine: Engine, held: Held, policy: Policy, seeds: Sequence[int], flight: int) -> dict[str, Any]:
    """Accuracy of one policy over several seeds: of each, their mean, and by family."""
    accuracies, formats, captions = [], 0, 0
    families: dict[str, list[bool]] = defaultdict(list)
    verdicts: dict[str, list[int]] = {stage: [0, 0, 0] for stage in STAGES}
    started = time.perf_counter()
    for seed in seeds:
        run = InProcess(engine, held.pictures.__getitem__, flight=flight)
        found = run.run(policy.with_overrides({"seed": seed}), [asked.query for asked in held.asked])
        right = []
        for asked, one in zip(held.asked, found, strict=True):
            answer = one.decision if isinstance(one.decision, Answer) else None
            right.append(answer is not None and asked.right(answer.text))
            formats += answer is not None and answer.format_ok
            captions += _caption(one) == teacher.caption(asked.scene)
            families[asked.question.family].append(right[-1])
            _swaps(one, verdicts)
        accuracies.append(sum(right) / len(right))
    n = len(held.asked) * len(seeds)
    low, high = wilson(round(statistics.mean(accuracies) * n), n)
    report: dict[str, Any] = {
        "n": len(held.asked),
        "seeds": list(seeds),
        "accuracy": statistics.mean(accuracies),
        "low": low,
        "high": high,
        "by_seed": accuracies,
        "format_ok": formats / n,
        "by_family": {name: sum(found) / len(found) for name, found in sorted(families.items())},
        "seconds_per_query": (time.perf_counter() - started) / n,
    }
    if policy.strategy != "single":  # a whole answer has no kept caption of its own
        report["caption_exact"] = captions / n
    total = [sum(counts) for counts in zip(*verdicts.values(), strict=True)]
    if total[0]:
        report |= {"verdicts": total[0], "unparseable": total[1] / total[0], "swap_agreed": 1 - total[2] / total[0]}
    return report


def _caption(one: Searched) -> str:
    if not isinstance(one.decision, Answer) or len(one.decision.path) != len(STAGES):
        return ""
    ref = one.decision.path[STAGES.index(Stage.CAPTION)]
    text = next(c.text for c in one.calls[ref.call].candidates if c.index == ref.index)
    return text.strip().removeprefix(Stage.CAPTION.open_tag).removesuffix(Stage.CAPTION.close_tag).strip()


def _swaps(one: Searched, verdicts: dict[str, list[int]]) -> None:
    """Count verdicts, those that no order could be read of, and those whose orders disagree."""
    for call in one.calls.values():
        if call.verdict is not None:
            choices = [showing.choice for showing in call.verdict.showings if showing.parse == "ok"]
            counts = verdicts[call.spec.stage]
            counts[0] += 1
            counts[1] += not choices
            counts[2] += len(set(choices)) > 1


def judge(engine: Engine, held: Held, count: int, seed: int, things: tuple[int, int]) -> dict[str, Any]:
    """The judge on `count` fresh pairs of each stage, both orders shown: shares right and agreed."""
    pending = []
    for stage in JUDGED:
        for index in range(count):
            scene, question, rng = sample("valid", seed, index, things)
            query = as_query(question, f"pair-{index}", held.picture(scene))
            made = pair(stage, scene, question, rng)
            shown = ((made.better, made.worse), (made.worse, made.better))
            prompts = [compare_prompt(query, "compact", "labels", stage, made.kept, texts) for texts in shown]
            futures = [
                engine.choose(
                    Choose(
                        call_id=f"{stage}/{index}/{order}",
                        prompt=prompt,
                        load_image=held.pictures.__getitem__,
                        group=query.custom_id,
                        labels=prompt.labels,
                    )
                )
                for order, prompt in enumerate(prompts)
            ]
            pending.append((stage, futures))
    found: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for stage, futures in pending:
        forward, backward = (future.result().probabilities[0] for future in futures)
        better = (forward + 1 - backward) / 2
        found[stage].append((better > 0.5, (forward > 0.5) == (backward < 0.5)))
    everything = [one for results in found.values() for one in results]
    return {
        "pairs": len(everything),
        "accuracy": _share(one[0] for one in everything),
        "swap_agreed": _share(one[1] for one in everything),
        "by_stage": {
            stage: {"accuracy": _share(r[0] for r in results), "swap_agreed": _share(r[1] for r in results)}
            for stage, results in found.items()
        },
    }


def _share(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_model", description=__doc__)
    parser.add_argument("--model", default="demo", help="`demo` or a model folder trained by the same recipe")
    parser.add_argument("--count", type=int, default=500, help="held-out questions")
    parser.add_argument("--seeds", type=int, default=5, help="sampling seeds")
    parser.add_argument("--candidates", type=int, nargs="*", default=[1, 2, 4, 8], help="widths of the search")
    parser.add_argument("--level", default="medium", choices=["easy", "medium", "hard"])
    parser.add_argument("--pairs", type=int, default=250, help="fresh pairs for the judge, of each stage")
    parser.add_argument("--flight", type=int, default=64, help="searches at once")
    parser.add_argument("--out", type=Path, default=RESULTS / "demo_model.json", help="result file")
    args = parser.parse_args()
    engine = open_engine(args.model, {"device": "cpu", "slots": 512})
    held = Held(2026, args.count, args.level)
    policy = Policy.from_mapping(cast("dict[str, Any]", SETTINGS["policy"]))
    report: dict[str, Any] = {"level": args.level, "policy": policy.to_mapping()}

    def told(name: str, part: dict[str, Any]) -> None:
        report[name] = part
        print(name, json.dumps(part), file=sys.stderr, flush=True)

    try:
        told("judge", judge(engine, held, args.pairs, 7, (3, 5)))
        told("greedy", measure(engine, held, single(policy, temperature=0.0), [0], args.flight))
        told("sampled", measure(engine, held, single(policy), range(args.seeds), args.flight))
        for candidates in args.candidates:
            wide = policy.with_overrides({"candidates": candidates})
            told(f"search-{candidates}", measure(engine, held, wide, range(args.seeds), args.flight))
    finally:
        engine.close()
    report["hardware"] = {"machine": platform.machine(), "system": platform.system()}
    report["versions"] = {name: version(name) for name in ("torch", "transformers")}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))
    return 0


def single(policy: Policy, **changes: Any) -> Policy:
    """The policy without search: all four stages in one pass."""
    return policy.with_overrides({"strategy": "single", "max_tokens": 420, **changes})


if __name__ == "__main__":
    sys.exit(main())
