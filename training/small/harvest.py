"""Judge rows from the model's own mistakes: it answers training scenes, the exact teacher says which text is better.

Mistakes that the teacher makes up (`pairs`) get a judge going; what it will be shown in a search are the mistakes of
the policy beside it, and those look different. This is rejection sampling (`training.data.reject`) with the teacher
in the place of the known answer, so that no candidate has to be carried on to a conclusion.

`rehearse` keeps whole answers, right or wrong. Trained on those in between, the policy stays what it is while the
judge learns more; a judge that knows no more than the policy beside it cannot help it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reasoning.grammar import read_stage
from reasoning.prompts import policy_prompt
from reasoning.records import Finish, Query
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
ANSWERING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=320)
"""The model just as it is, no word of it cut off."""
HARVESTED = (Stage.CAPTION, Stage.REASONING)
"""Stages in which the model still makes mistakes of its own."""


def harvest(engine: Engine, out: Path, *, seed: int, scenes: int, things: tuple[int, int] = (2, 6)) -> None:
    """Write the pairs of `scenes` scenes to `out`, JSON lines; a killed run goes on where it stopped."""

    def found(index: int) -> dict[str, Any]:
        return {"pairs": [_to_json(pair) for pair in _scene(engine, seed, index, things)]}

    _collect(found, out, seed, scenes, things)


def rehearse(engine: Engine, out: Path, *, seed: int, scenes: int, things: tuple[int, int] = (2, 6)) -> None:
    """Write one answer to each of `scenes` scenes to `out`, as `harvest` does."""

    def found(index: int) -> dict[str, Any]:
        return {"answer": _answer(engine, seed, index, things)}

    _collect(found, out, seed, scenes, things)


def _collect(
    found: Callable[[int], dict[str, Any]], out: Path, seed: int, scenes: int, things: tuple[int, int]
) -> None:
    settled = {record["index"] for record in lines(out)}
    due = [index for index in range(scenes) if index not in settled]
    with Journal(out) as journal, ThreadPoolExecutor(_PARALLEL, thread_name_prefix="harvest") as pool:
        for index, record in zip(due, pool.map(found, due), strict=True):
            journal.append({"index": index, "seed": seed, "things": list(things), **record})


Own = tuple[Scene, Question, Pair | str]
"""A scene, its question, and of the model's own: two texts, the better first, or a whole answer."""


def read(path: Path) -> dict[str, list[Own]]:
    """What was collected: pairs by stage, and answers under `policy`."""
    found: dict[str, list[Own]] = {}
    for record in lines(path):
        things = (record["things"][0], record["things"][1])
        scene, question, _ = sample(SPLIT, record["seed"], record["index"], things)
        for data in record.get("pairs", ()):
            kept = {Stage(name): text for name, text in data["kept"].items()}
            pair = Pair(data["stage"], data["better"], data["worse"], kept)
            found.setdefault(data["stage"], []).append((scene, question, pair))
        if record.get("answer"):
            found.setdefault("policy", []).append((scene, question, record["answer"]))
    return found


def _to_json(pair: Pair) -> dict[str, Any]:
    return {"stage": pair.stage, "better": pair.better, "worse": pair.worse, "kept": dict(pair.kept)}


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A scene with what the engine needs to be asked about it."""

    scene: Scene
    question: Question
    query: Query
    load: Callable[[str], bytes]
    rng: np.random.Generator


def _draw(seed: int, index: int, things: tuple[int, int]) -> _Drawn:
    scene, question, rng = sample(SPLIT, seed, index, things)
    buffer = io.BytesIO()
    Image.fromarray(render(scene)).save(buffer, "PNG")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    query = as_query(question, f"harvest-{index}", digest)
    return _Drawn(scene, question, query, {digest: buffer.getvalue()}.__getitem__, rng)


def _ask(engine: Engine, drawn: _Drawn, prefix: str, stop: str, candidates: int, sampling: Sampling) -> list[str]:
    """Texts that ended with `stop`."""
    request = Generate(
        call_id=f"{drawn.query.custom_id}/{stop}",
        prompt=policy_prompt(drawn.query, "compact", prefix),
        load_image=drawn.load,
        group=drawn.query.custom_id,
        indices=tuple(range(candidates)),
        seeds=tuple(int(number) for number in drawn.rng.integers(2**62, size=candidates)),
        stop=stop,
        sampling=sampling,
    )
    return [one.text for one in engine.generate(request).result().candidates if one.finish is Finish.STOP]


def _answer(engine: Engine, seed: int, index: int, things: tuple[int, int]) -> str:
    """A whole answer; empty when it did not end."""
    stop = Stage.CONCLUSION.close_tag
    return "".join(_ask(engine, _draw(seed, index, things), "", stop, 1, ANSWERING))


def _scene(engine: Engine, seed: int, index: int, things: tuple[int, int]) -> list[Pair]:
    drawn = _draw(seed, index, things)
    scene, question, rng = drawn.scene, drawn.question, drawn.rng
    path: dict[Stage, str] = {Stage.SUMMARY: teacher.summary(question)}
    pairs: list[Pair] = []
    for stage in HARVESTED:
        said = _ask(engine, drawn, teacher.tagged(path), stage.close_tag, CANDIDATES, SAMPLING)
        texts = [read_stage(text, stage).inner for text in said]
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
    wanted = teacher.reason(scene, question)
    return 0 if text == wanted.text else 1 if text.endswith(f" {wanted.value}") else 2


def _distance(wanted: str, said: str) -> int:
    """Things of the one text that the other lacks."""
    ours, theirs = (set(_things(text)) for text in (wanted, said))
    return len(ours ^ theirs)


def _things(caption: str) -> Iterator[str]:
    for part in caption.split("#")[1:]:
        yield part.split(" ", 1)[-1].strip()
