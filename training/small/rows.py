"""Training rows of the demo model, each a pure function of (split, seed, index): nothing is stored.

A row is exactly the text that `reasoning.prompts` and the chat template render at inference, style `compact`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasoning.prompts import LABELS, compare_prompt, question_text
from reasoning.records import WHOLE, Query
from reasoning.stages import STAGES, Stage
from training.scenes import teacher
from training.scenes.questions import LETTERS, Question, ask
from training.scenes.render import render
from training.scenes.world import ATTRIBUTES, PLACES, Scene, Split, draw, stream
from training.small.pairs import Pair, pair
from training.small.tokenizer import ASSISTANT, BOS, END, IMAGE, MOST, USER

KINDS: tuple[str, ...] = (
    *("policy", "look", "think", "drill", "verify-caption", "verify-reasoning"),
    *(f"judge-{stage}" for stage in (*STAGES, WHOLE)),
)
"""`policy` writes all four stages, `look` the CAPTION alone, `judge-STAGE` compares two texts for a stage.

`verify-STAGE` reads one text with many wrong words in it and is asked behind each whether it is right. One bit a
row is too little to find out that two texts are to be held against the picture; with a bit a word it is found.

`think` is `policy` with the loss on the checks, counts and results alone: one word in ten of an answer, and the
ones that do not learn themselves beside the many that are easy. `drill` is nothing but pairs of words, each
followed by whether they are the same: without it a small model stays for hundreds of steps at never comparing.
"""

_PAIRS = 16
"""Pairs of words in a drill row."""

LOOK = "Look."
"""What a `look` row asks: more seeing per second of training than a question brings."""

_SINCE_SHARE = 0.5
"""Share of judge rows whose label is followed by what tells the texts apart: more to learn from than one bit."""


@dataclass(frozen=True, slots=True)
class Row:
    """One training example before tokenisation; the loss is on `reply` alone."""

    prompt: str
    reply: str
    image: NDArray[np.uint8]
    decisive: bool = False
    """The loss is on the words that decide alone (see `think`)."""
    rights: tuple[bool | None, ...] = ()
    """`verify` rows: whether each word of the reply is right, None where nothing is asked; no other loss."""
    better: int | None = None
    """Judge rows: place of the better text, 0 or 1. Where the texts part, it is asked which goes on right."""


def sample(split: Split, seed: int, index: int, things: tuple[int, int]) -> tuple[Scene, Question, np.random.Generator]:
    """Scene and question of a row, and the generator to go on with."""
    rng = stream(split, seed, index)
    scene = draw(rng, *things)
    return scene, ask(scene, rng), rng


def build(kind: str, split: Split, seed: int, index: int, things: tuple[int, int]) -> Row:
    """The row of this kind at this place."""
    scene, question, rng = sample(split, seed, index, things)
    if kind == "drill":
        return Row(chat(LOOK), _drill(rng), render(scene), decisive=True)
    query = as_query(question)
    if kind in ("policy", "look", "think"):
        stages = teacher.teach(scene, question)
        if kind == "look":
            return Row(chat(LOOK), teacher.tagged({Stage.CAPTION: stages[Stage.CAPTION]}) + END, render(scene))
        return Row(chat(question_text(query)), teacher.tagged(stages) + END, render(scene), kind == "think")
    if kind.startswith("verify-"):
        return _verify(Stage(kind.removeprefix("verify-")), query, scene, question, rng)
    chosen = pair(kind.removeprefix("judge-"), scene, question, rng)
    return judge_row(query, chosen, bool(rng.random() < 0.5), bool(rng.random() < _SINCE_SHARE), render(scene))


def _drill(rng: np.random.Generator) -> str:
    words: list[str] = []
    for _ in range(_PAIRS):
        options = list(ATTRIBUTES.values())[int(rng.integers(len(ATTRIBUTES)))]
        wanted = there = options[int(rng.integers(len(options)))]
        if rng.random() < 0.5:
            there = options[int(rng.integers(len(options)))]
        words += [("first", "second")[int(rng.integers(2))]] if rng.random() < 0.3 else []
        words += [wanted, there, "yes" if wanted == there else "no"]
    return Stage.REASONING.open_tag + " ".join(words)


def judge_row(query: Query, chosen: Pair, better_first: bool, explain: bool, image: NDArray[np.uint8]) -> Row:
    """A comparison with its label as the first word of the reply."""
    shown = (chosen.better, chosen.worse) if better_first else (chosen.worse, chosen.better)
    prompt = compare_prompt(query, "compact", "labels", chosen.stage, chosen.kept, shown)
    label = LABELS[0] if better_first else LABELS[1]
    since = f" since {chosen.since}" if explain and chosen.since else ""
    return Row(chat(prompt.messages[0].text), label + since + END, image, better=0 if better_first else 1)


def _verify(stage: Stage, query: Query, scene: Scene, question: Question, rng: np.random.Generator) -> Row:
    """A right text of which some words were replaced by others of their sort, under the head of a judge prompt."""
    caption = teacher.caption(scene)
    text = caption if stage is Stage.CAPTION else teacher.reason(scene, question).text
    kept = {} if stage is Stage.CAPTION else {Stage.CAPTION: caption}
    head = compare_prompt(query, "compact", "labels", stage, kept, ("?", "")).messages[0].text.rpartition("?")[0]
    words, rights = [], []
    for word in text.split():
        sort = _SORTS.get(word, ())
        asked = len(sort) > 1
        wrong = asked and rng.random() < _WRONG_SHARE
        words.append([other for other in sort if other != word][int(rng.integers(len(sort) - 1))] if wrong else word)
        rights.append(not wrong if asked else None)
    return Row(f"{BOS}{USER}{IMAGE}{head}", " ".join(words) + END, render(scene), rights=tuple(rights))


def _sorts() -> dict[str, tuple[str, ...]]:
    """Words that may stand for each other."""
    numbers = range(MOST + 1)
    groups = [
        *(*ATTRIBUTES.values(), PLACES, ("yes", "no"), ("keep", "drop"), tuple(LETTERS)),
        *(tuple(form.format(n) for n in numbers) for form in ("{}", "({})", "[{}]")),
    ]
    return {word: group for group in groups for word in group}


_SORTS = _sorts()
_WRONG_SHARE = 0.2
"""Of the words of a `verify` row."""


def chat(text: str) -> str:
    """One user turn with an image, as the chat template renders it, up to where the assistant speaks."""
    return f"{BOS}{USER}{IMAGE}{text}{ASSISTANT}"


def as_query(question: Question, custom_id: str = "row", image: str = "image") -> Query:
    """The question as the search sees it."""
    return Query(custom_id, question.text, (image,), question.choices)
