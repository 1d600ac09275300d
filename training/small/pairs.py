"""Judge rows from the exact teacher: a text and the same text with a mistake, and which is better.

A mistake is what a small model gets wrong: an attribute or place of a thing, a thing missed or made up, a check,
a piece of evidence, a result. The known better text wins; of two wrong captions, the one with fewer mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from reasoning.stages import Stage
from training.scenes import teacher
from training.scenes.questions import LETTERS, Condition, Question, options
from training.scenes.world import ATTRIBUTES, PLACES, Scene, Thing, draw

_HASTY = 0.3
"""Share of wrong REASONINGs that are hasty where the right one is careful."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts for one stage, the better first, and what is kept so far."""

    stage: str
    better: str
    worse: str
    kept: Mapping[Stage, str] = field(default_factory=dict)


def pair(stage: str, scene: Scene, question: Question, rng: np.random.Generator) -> Pair:
    """A right and a wrong text for a stage, or for the whole answer."""
    match stage:
        case Stage.SUMMARY:
            return _summaries(question, rng)
        case Stage.CAPTION:
            return _captions(scene, rng)
        case Stage.REASONING:
            return _reasonings(scene, question, rng)
        case Stage.CONCLUSION:
            return _conclusions(scene, question, rng)
    return _answers(scene, question, rng)


def spoil(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene as a careless eye sees it, one mistake in it."""
    things = list(scene.things)
    at = int(rng.integers(len(things)))
    thing, lot = things[at], rng.random()
    if lot < 0.12 and len(things) > 1:
        del things[at]
        return replace(scene, things=tuple(things))
    free = [place for place in range(len(PLACES)) if all(t.place != place for t in things)]
    if lot < 0.22 and free:
        extra = replace(draw(rng, 1, 1).things[0], place=free[int(rng.integers(len(free)))])
        return _ordered(scene, [*things, extra])
    if lot < 0.32 and free:
        things[at] = replace(thing, place=free[int(rng.integers(len(free)))])
        return _ordered(scene, things)
    things[at] = _misseen(thing, rng)
    return replace(scene, things=tuple(things))


def _misseen(thing: Thing, rng: np.random.Generator) -> Thing:
    name = ("shape", "shape", "shape", "material", "material", "size", "color", "color")[int(rng.integers(8))]
    others = [value for value in ATTRIBUTES[name] if value != getattr(thing, name)]
    changes: dict[str, Any] = {name: others[int(rng.integers(len(others)))]}
    return replace(thing, **changes)


def _ordered(scene: Scene, things: list[Thing]) -> Scene:
    return replace(scene, things=tuple(sorted(things, key=lambda thing: thing.place)))


def _captions(scene: Scene, rng: np.random.Generator) -> Pair:
    good = spoil(scene, rng) if rng.random() < 0.25 else scene
    bad = spoil(good, rng)
    while rng.random() < 0.3 or teacher.caption(bad) in (teacher.caption(scene), teacher.caption(good)):
        bad = spoil(bad, rng)
    if _mistakes(scene, bad) < _mistakes(scene, good):
        good, bad = bad, good
    return Pair(Stage.CAPTION, teacher.caption(good), teacher.caption(bad))


def _mistakes(truth: Scene, seen: Scene) -> int:
    names = {thing.name for thing in truth.things}
    return sum(thing.name not in names for thing in seen.things) + abs(len(truth.things) - len(seen.things))


def _reasonings(scene: Scene, question: Question, rng: np.random.Generator) -> Pair:
    if rng.random() < 0.3:
        scene = spoil(scene, rng)
    kept = {Stage.CAPTION: teacher.caption(scene)}
    right, lot = teacher.reason(scene, question).text, rng.random()
    if lot < 0.1:
        return _endings(scene, question, rng)
    if rng.random() < _HASTY:
        return Pair(Stage.REASONING, right, _hasty(scene, question, rng), kept)
    if lot < 0.25 and len(scene.things) > 1:
        cut = replace(scene, things=scene.things[: int(rng.integers(1, len(scene.things)))])
        return Pair(Stage.REASONING, right, teacher.reason(cut, question, {}).text, kept)
    misread = teacher.reason(scene, _misread(question, rng), {}).text
    if lot < 0.32 and misread != right:
        return Pair(Stage.REASONING, right, misread, kept)
    if 0.32 <= lot < 0.45:
        seen = spoil(scene, rng)
        return Pair(Stage.REASONING, right, teacher.reason(seen, question).text, kept)
    at = int(rng.integers(len(scene.things)))
    wrong = {at: _flipped(question, scene.things[at], rng)}
    if rng.random() < 0.25:
        also = int(rng.integers(len(scene.things)))
        wrong.setdefault(also, _flipped(question, scene.things[also], rng))
    return Pair(Stage.REASONING, right, teacher.reason(scene, question, wrong).text, kept)


def _hasty(scene: Scene, question: Question, rng: np.random.Generator) -> str:
    """A hasty text with a mistake."""
    at = int(rng.integers(len(scene.things)))
    wrong = {at: _flipped(question, scene.things[at], rng)}
    return teacher.reason(scene, question, wrong, manner="hasty").text


def _endings(scene: Scene, question: Question, rng: np.random.Generator) -> Pair:
    """A result, and another one after the same checks: what a small model is least sure of."""
    right = teacher.reason(scene, question)
    others = [option for option in options(question) if option != right.result]
    wrong = teacher.reason(scene, question, result=others[int(rng.integers(len(others)))])
    return Pair(Stage.REASONING, right.text, wrong.text, {Stage.CAPTION: teacher.caption(scene)})


def _flipped(question: Question, thing: Thing, rng: np.random.Generator) -> teacher.Checks:
    """The checks of a thing, one of them wrong."""
    found = list(teacher.checks(question, thing))
    which = int(rng.integers(len(found)))
    found[which] = not found[which]
    return tuple(found)


def _misread(question: Question, rng: np.random.Generator) -> Question:
    """The question with one word of a description read as another."""
    at = int(rng.integers(len(question.conditions)))
    values = dict(question.conditions[at].values)
    name = list(values)[int(rng.integers(len(values)))]
    others = [value for value in ATTRIBUTES[name] if value != values[name]]
    values[name] = others[int(rng.integers(len(others)))]
    conditions = list(question.conditions)
    conditions[at] = Condition(tuple(values.items()))
    return replace(question, conditions=tuple(conditions))


def _summaries(question: Question, rng: np.random.Generator) -> Pair:
    wrong = _misread(question, rng)
    return Pair(Stage.SUMMARY, teacher.summary(question), teacher.summary(wrong))


def _conclusions(scene: Scene, question: Question, rng: np.random.Generator) -> Pair:
    reasoned = teacher.reason(scene, question)
    kept = {Stage.CAPTION: teacher.caption(scene), Stage.REASONING: reasoned.text}
    return Pair(Stage.CONCLUSION, question.answer, _other_answer(question, rng), kept)


def _other_answer(question: Question, rng: np.random.Generator) -> str:
    if question.choices:
        options = list(LETTERS[: len(question.choices)])
    elif question.answer.isdigit():
        options = [str(n) for n in range(10)]
    elif question.answer in ("yes", "no"):
        options = ["yes", "no"]
    else:
        options = [word for words in ATTRIBUTES.values() for word in words]
    others = [option for option in options if option != question.answer]
    return others[int(rng.integers(len(others)))]


def _answers(scene: Scene, question: Question, rng: np.random.Generator) -> Pair:
    """Two whole answers: the right one, and one with a mistake in seeing or in thinking carried to the end."""
    right = teacher.teach(scene, question)
    wrong = dict(right)
    while wrong[Stage.CONCLUSION] == question.answer:
        if rng.random() < 0.5:
            seen = spoil(scene, rng)
            wrong[Stage.CAPTION] = teacher.caption(seen)
            reasoned = teacher.reason(seen, question)
        else:
            at = int(rng.integers(len(scene.things)))
            wrong[Stage.CAPTION] = right[Stage.CAPTION]
            reasoned = teacher.reason(scene, question, {at: _flipped(question, scene.things[at], rng)})
        wrong |= {Stage.REASONING: reasoned.text, Stage.CONCLUSION: reasoned.value}
        if rng.random() < 0.02:
            wrong[Stage.CONCLUSION] = _other_answer(question, rng)
    return Pair("whole", teacher.tagged(right), teacher.tagged(wrong))
