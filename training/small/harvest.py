"""Judge rows from the model's own mistakes: it answers training scenes, the exact teacher says which text is better.

Mistakes that the teacher makes up (`pairs`) get a judge going; what it will be shown in a search are the mistakes of
the policy beside it, and those look different. This is rejection sampling (`training.data.reject`) with the teacher
in the place of the known answer, so that no candidate has to be carried on to a conclusion.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from reasoning.grammar import read_stage
from reasoning.prompts import policy_prompt
from reasoning.records import Finish
from reasoning.stages import Stage
from training.data.journal import Journal, lines
from training.scenes import teacher
from training.scenes.questions import Question
from training.scenes.render import render
from training.scenes.world import Scene, Split
from training.small.pairs import Pair
from training.small.rows import as_query, sample
from workers.engine.protocol import Engine, Generate, Sampling

_PARALLEL = 48
"""Scenes asked about at a time."""
SPLIT: Split = "judge"
"""Split of the scenes; policy rows come from `train`."""
CANDIDATES = 6
"""Texts drawn for a stage of a scene."""
PAIRS = 2
"""Pairs kept at most of a stage of a scene."""
SAMPLING = Sampling(temperature=1.0, top_p=0.98, top_k=0, max_tokens=200)
"""Livelier than the defaults of a search: mistakes are what is wanted."""
HARVESTED = (Stage.CAPTION, Stage.REASONING)
"""Stages in which the model still makes mistakes of its own."""


def harvest(engine: Engine, out: Path, *, seed: int, scenes: int, things: tuple[int, int] = (2, 6)) -> None:
    """Write the pairs of `scenes` scenes to `out`, JSON lines; a killed run goes on where it stopped."""
    settled = {record["index"] for record in lines(out)}
    due = [index for index in range(scenes) if index not in settled]
    with Journal(out) as journal, ThreadPoolExecutor(_PARALLEL, thread_name_prefix="harvest") as pool:
        for index, pairs in zip(due, pool.map(lambda i: _scene(engine, seed, i, things), due), strict=True):
            record = {"index": index, "seed": seed, "things": list(things), "pairs": [_to_json(it) for it in pairs]}
            journal.append(record)


Harvested = tuple[Scene, Question, Pair]
"""A scene, its question and two texts of the model about it, the better first."""


def read(path: Path) -> dict[str, list[Harvested]]:
    """What a harvest found, by stage."""
    found: dict[str, list[Harvested]] = {stage: [] for stage in HARVESTED}
    for record in lines(path):
        things = (record["things"][0], record["things"][1])
        scene, question, _ = sample(SPLIT, record["seed"], record["index"], things)
        for data in record["pairs"]:
            kept = {Stage(name): text for name, text in data["kept"].items()}
            found[data["stage"]].append((scene, question, Pair(data["stage"], data["better"], data["worse"], kept)))
    return found


def _to_json(pair: Pair) -> dict[str, Any]:
    return {"stage": pair.stage, "better": pair.better, "worse": pair.worse, "kept": dict(pair.kept)}


def _scene(engine: Engine, seed: int, index: int, things: tuple[int, int]) -> list[Pair]:
    scene, question, rng = sample(SPLIT, seed, index, things)
    buffer = io.BytesIO()
    Image.fromarray(render(scene)).save(buffer, "PNG")
    image = buffer.getvalue()
    query = as_query(question, f"harvest-{index}", hashlib.sha256(image).hexdigest())
    path: dict[Stage, str] = {Stage.SUMMARY: teacher.summary(question)}
    pairs: list[Pair] = []
    for stage in HARVESTED:
        request = Generate(
            call_id=f"{query.custom_id}/{stage}",
            prompt=policy_prompt(query, "compact", teacher.tagged(path)),
            load_image=dict.fromkeys(query.images, image).__getitem__,
            group=query.custom_id,
            indices=tuple(range(CANDIDATES)),
            seeds=tuple(int(number) for number in rng.integers(2**62, size=CANDIDATES)),
            stop=stage.close_tag,
            sampling=SAMPLING,
        )
        drawn = engine.generate(request).result().candidates
        texts = [read_stage(one.text, stage).inner for one in drawn if one.finish is Finish.STOP]
        ranked = sorted((_flaws(scene, question, stage, text), text) for text in set(texts))
        kept: dict[Stage, str] = {name: text for name, text in path.items() if name is not Stage.SUMMARY}
        pairs += _pairs(stage, ranked, kept, rng)
        if stage is not HARVESTED[-1]:
            path[stage] = texts[int(rng.integers(len(texts)))] if texts else teacher.caption(scene)
    return pairs


def _pairs(
    stage: Stage, ranked: Sequence[tuple[int, str]], kept: dict[Stage, str], rng: np.random.Generator
) -> list[Pair]:
    """Pairs of clearly different worth, drawn without looking which."""
    places = [(a, b) for a in range(len(ranked)) for b in range(a + 1, len(ranked)) if ranked[a][0] < ranked[b][0]]
    chosen = [places[int(i)] for i in rng.permutation(len(places))[:PAIRS]]
    return [Pair(stage, ranked[a][1], ranked[b][1], dict(kept)) for a, b in chosen]


def _flaws(scene: Scene, question: Question, stage: Stage, text: str) -> int:
    """How far a text is from what the teacher writes: of captions the words that differ, else whether it ends right."""
    if stage is Stage.CAPTION:
        return _distance(teacher.caption(scene), text)
    careful, hasty = (teacher.reason(scene, question, manner=manner) for manner in get_args(teacher.Manner))
    if text in (careful.text, hasty.text):
        return 0
    return 1 if text.endswith(f" {careful.value}") else 2


def _distance(wanted: str, said: str) -> int:
    """Things of the one text that the other lacks."""
    ours, theirs = (set(_things(text)) for text in (wanted, said))
    return len(ours ^ theirs)


def _things(caption: str) -> Iterator[str]:
    for part in caption.split("#")[1:]:
        yield part.split(" ", 1)[-1].strip()
