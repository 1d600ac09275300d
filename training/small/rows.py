"""Training rows of the demo model, each a pure function of (split, seed, index): nothing is stored.

A row is exactly the text that `reasoning.prompts` and the chat template render at inference, style `compact`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reasoning.prompts import compare_prompt, question_text
from reasoning.records import WHOLE, Query
from reasoning.stages import STAGES, Stage
from training.scenes import teacher
from training.scenes.questions import Question, ask
from training.scenes.render import render
from training.scenes.world import ATTRIBUTES, Scene, Split, draw, stream
from training.small.pairs import Pair, pair
from training.small.tokenizer import ASSISTANT, BOS, END, IMAGE, USER

KINDS: tuple[str, ...] = ("policy", "look", "think", "drill", *(f"judge-{stage}" for stage in (*STAGES, WHOLE)))
"""`policy` writes all four stages, `look` the CAPTION alone, `judge-STAGE` compares two texts for a stage.

`think` is `policy` with the loss on the checks, counts and results alone: one word in ten of an answer, and the
ones that do not learn themselves beside the many that are easy. `drill` is nothing but pairs of words, each
followed by whether they are the same: without it a small model stays for hundreds of steps at never comparing.
"""

_PAIRS = 16
"""Pairs of words in a drill row."""

LOOK = "Look."
"""What a `look` row asks: more seeing per second of training than a question brings."""


@dataclass(frozen=True, slots=True)
class Row:
    """One training example before tokenisation; the loss is on `reply` alone."""

    prompt: str
    reply: str
    image: NDArray[np.uint8]
    decisive: bool = False
    """The loss is on the words that decide alone (see `think`)."""


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
    chosen = pair(kind.removeprefix("judge-"), scene, question, rng)
    return judge_row(query, chosen, bool(rng.random() < 0.5), render(scene))


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


def judge_row(query: Query, chosen: Pair, better_first: bool, image: NDArray[np.uint8]) -> Row:
    """A comparison; the reply is the label of the better text."""
    shown = (chosen.better, chosen.worse) if better_first else (chosen.worse, chosen.better)
    prompt = compare_prompt(query, "compact", "labels", chosen.stage, chosen.kept, shown)
    return Row(chat(prompt.messages[0].text) + prompt.prefix, prompt.labels[0 if better_first else 1], image)


def chat(text: str) -> str:
    """One user turn with an image, as the chat template renders it, up to where the assistant speaks."""
    return f"{BOS}{USER}{IMAGE}{text}{ASSISTANT}"


def as_query(question: Question, custom_id: str = "row", image: str = "image") -> Query:
    """The question as the search sees it."""
    return Query(custom_id, question.text, (image,), question.choices)
