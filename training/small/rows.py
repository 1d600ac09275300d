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
from training.scenes.questions import Family, Question, ask
from training.scenes.render import render
from training.scenes.world import Scene, Split, draw, stream
from training.small.pairs import Pair, pair
from training.small.tokenizer import ASSISTANT, BOS, END, IMAGE, USER

KINDS: tuple[str, ...] = ("policy", "look", "think", "begin", *(f"judge-{stage}" for stage in (*STAGES, WHOLE)))
"""`policy` writes all four stages, `look` the CAPTION alone, `judge-STAGE` compares two texts for a stage.

`think` goes on with a careful REASONING that is begun already, so that it does not teach which manner to begin with.
It asks what is asked seldom: carrying along what was found takes more examples than the questions would bring. `begin`
teaches that alone: beside judge rows, which have one word to learn from, what the judge likes would else become what
the policy does.
"""
SELDOM: tuple[Family, ...] = ("attribute", "attribute", "relation", "relation", "exist", "compare")
"""Families of `think` rows, drawn evenly."""

HASTY = 0.6
"""Share of policy rows whose teacher reasons hastily. Data from many hands are like this, and it is what a search has
to gain from: the likeliest manner is not the one that is right most often, and a judge can tell."""

_OPENED = Stage.REASONING.open_tag
LOOK = "Look."
"""What a `look` row asks: more seeing per second of training than a question brings."""


@dataclass(frozen=True, slots=True)
class Row:
    """One training example before tokenisation; the loss is on `reply` alone."""

    prompt: str
    reply: str
    image: NDArray[np.uint8]


def sample(split: Split, seed: int, index: int, things: tuple[int, int]) -> tuple[Scene, Question, np.random.Generator]:
    """Scene and question of a row, and the generator to go on with."""
    rng = stream(split, seed, index)
    scene = draw(rng, *things)
    return scene, ask(scene, rng), rng


def build(kind: str, split: Split, seed: int, index: int, things: tuple[int, int]) -> Row:
    """The row of this kind at this place."""
    scene, question, rng = sample(split, seed, index, things)
    if kind == "think":
        return _think(scene, ask(scene, rng, SELDOM[int(rng.integers(len(SELDOM)))]))
    if kind == "begin":
        return _begin(scene, question, rng)
    query = as_query(question)
    if kind == "look":
        return Row(chat(LOOK), teacher.tagged({Stage.CAPTION: teacher.caption(scene)}) + END, render(scene))
    if kind == "policy":
        answer = teacher.tagged(teacher.teach(scene, question, _manner(rng)))
        return Row(chat(question_text(query)), answer + END, render(scene))
    chosen = pair(kind.removeprefix("judge-"), scene, question, rng)
    return judge_row(query, chosen, bool(rng.random() < 0.5), render(scene))


def _think(scene: Scene, question: Question) -> Row:
    before, after = _parted(scene, question, "careful", _OPENED + "#1")
    return Row(before, after + END, render(scene))


def _begin(scene: Scene, question: Question, rng: np.random.Generator) -> Row:
    before, after = _parted(scene, question, _manner(rng), _OPENED)
    return Row(before, after.split(" ", 1)[0], render(scene))


def _parted(scene: Scene, question: Question, manner: teacher.Manner, at: str) -> tuple[str, str]:
    """A prompt with the answer up to and with `at`, and the rest of the answer."""
    before, after = teacher.tagged(teacher.teach(scene, question, manner)).split(at)
    return chat(question_text(as_query(question))) + before + at, after


def _manner(rng: np.random.Generator) -> teacher.Manner:
    """How the teacher of a row reasons."""
    return "hasty" if rng.random() < HASTY else "careful"


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
