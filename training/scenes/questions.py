"""Questions about a scene as small programs: what to look for, and the exact answer.

Six families. `subtract` is the example of the paper that stagebeam implements ("subtract all tiny shiny balls
and purple objects; how many are left?", arXiv 2411.10440, figure 2); the others ask for counts, existence, an
attribute of the one thing that fits a description, and how two such things stand to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from training.scenes.world import ATTRIBUTES, PLACES, Scene, Thing

Family = Literal["subtract", "compare", "count", "exist", "attribute", "relation"]

WEIGHTS: Mapping[Family, float] = {
    "subtract": 0.35,
    "compare": 0.20,
    "count": 0.10,
    "exist": 0.10,
    "attribute": 0.10,
    "relation": 0.15,
}
"""Share of each family among questions; a family that a scene has no question for is drawn again."""

RELATIONS: Mapping[str, Callable[[Thing, Thing], bool]] = {
    "left of": lambda a, b: a.column < b.column,
    "right of": lambda a, b: a.column > b.column,
    "above": lambda a, b: a.row < b.row,
    "below": lambda a, b: a.row > b.row,
}
"""How two things stand to each other in the picture, by the columns and rows of their cells."""

CHOICE_SHARE = 0.3
"""Share of questions that offer lettered choices."""
LETTERS = "ABCD"
_TRIES = 12
"""Draws at most until a yes/no question has the wanted answer."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A description: values of some attributes, in the spoken order."""

    values: tuple[tuple[str, str], ...]

    def fits(self, thing: Thing) -> bool:
        """Whether a thing has all the values."""
        return all(getattr(thing, name) == value for name, value in self.values)

    @property
    def words(self) -> str:
        """The description of one thing, such as `tiny shiny ball` or `purple thing`."""
        named = [value for _, value in self.values]
        return " ".join(named if any(name == "shape" for name, _ in self.values) else [*named, "thing"])


@dataclass(frozen=True, slots=True)
class Question:
    """One question, its program and its exact answer."""

    family: Family
    text: str
    conditions: tuple[Condition, ...]
    """What the program looks for: one description, or two."""
    answer: str
    """The expected CONCLUSION: a number, a word, or the letter of the right choice."""
    asked: str = ""
    """The attribute that is asked for, or the relation."""
    choices: tuple[str, ...] = ()


def ask(scene: Scene, rng: np.random.Generator, family: Family | None = None) -> Question:
    """A question about the scene, of the given family or of one drawn by weight."""
    names = list(WEIGHTS)
    while True:
        drawn = family or names[int(np.searchsorted(np.cumsum(list(WEIGHTS.values())), rng.random()))]
        question = _ASK[drawn](scene, rng)
        if question:
            return _with_choices(question, rng)
        family = None


def value(question: Question, scene: Scene) -> str:
    """What the program computes on a scene, before it is turned into the letter of a choice.

    `unknown` where an attribute or relation is asked of a thing that is not there exactly once.
    """
    hits = [[thing for thing in scene.things if condition.fits(thing)] for condition in question.conditions]
    match question.family:
        case "subtract":
            gone = [thing for thing in scene.things if any(c.fits(thing) for c in question.conditions)]
            return str(len(scene.things) - len(gone))
        case "compare":
            return _yes(len(hits[0]) > len(hits[1]))
        case "count":
            return str(len(hits[0]))
        case "exist":
            return _yes(bool(hits[0]))
    if any(len(found) != 1 for found in hits):
        return "unknown"
    if question.family == "attribute":
        return str(getattr(hits[0][0], question.asked))
    return _yes(RELATIONS[question.asked](hits[0][0], hits[1][0]))


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _condition(scene: Scene, rng: np.random.Generator, most: int = 3) -> Condition:
    """A description with one to three attributes, mostly of a thing that is there."""
    size = min(most, 1 + int(np.searchsorted((0.45, 0.85), rng.random())))
    names = [list(ATTRIBUTES)[i] for i in sorted(rng.permutation(len(ATTRIBUTES))[:size].tolist())]
    if rng.random() < 0.75:
        thing = scene.things[int(rng.integers(len(scene.things)))]
        return Condition(tuple((name, getattr(thing, name)) for name in names))
    return Condition(tuple((name, ATTRIBUTES[name][int(rng.integers(len(ATTRIBUTES[name])))]) for name in names))


def _unique(scene: Scene, rng: np.random.Generator) -> Condition | None:
    """A description, as short as possible, that exactly one thing fits."""
    for _ in range(_TRIES):
        condition = _condition(scene, rng)
        if sum(condition.fits(thing) for thing in scene.things) == 1:
            return condition
    return None


def _pick(rng: np.random.Generator, *texts: str) -> str:
    return texts[int(rng.integers(len(texts)))]


def _settled(family: Family, text: str, conditions: tuple[Condition, ...], scene: Scene, asked: str = "") -> Question:
    question = Question(family, text, conditions, "", asked)
    return replace(question, answer=value(question, scene))


def _balanced(rng: np.random.Generator, draw: Callable[[], Question | None]) -> Question | None:
    """A yes/no question with the answer that a coin asks for, if one turns up."""
    wanted = _yes(rng.random() < 0.5)
    question = None
    for _ in range(_TRIES):
        question = draw()
        if question is None or question.answer == wanted:
            return question
    return question


def _two(scene: Scene, rng: np.random.Generator) -> tuple[Condition, Condition]:
    first = second = _condition(scene, rng)
    while second == first:
        second = _condition(scene, rng)
    return first, second


def _subtract(scene: Scene, rng: np.random.Generator) -> Question:
    a, b = _two(scene, rng)
    text = _pick(
        rng,
        f"Subtract all {a.words}s and {b.words}s. How many things are left?",
        f"Take away all {a.words}s and all {b.words}s. How many things remain?",
    )
    return _settled("subtract", text, (a, b), scene)


def _compare(scene: Scene, rng: np.random.Generator) -> Question | None:
    def draw() -> Question:
        a, b = _two(scene, rng)
        text = _pick(
            rng,
            f"Are there more {a.words}s than {b.words}s?",
            f"Is the number of {a.words}s greater than the number of {b.words}s?",
        )
        return _settled("compare", text, (a, b), scene)

    return _balanced(rng, draw)


def _count(scene: Scene, rng: np.random.Generator) -> Question:
    a = _condition(scene, rng, most=2)
    text = _pick(rng, f"How many {a.words}s are there?", f"Count the {a.words}s.")
    return _settled("count", text, (a,), scene)


def _exist(scene: Scene, rng: np.random.Generator) -> Question | None:
    def draw() -> Question:
        a = _condition(scene, rng)
        text = _pick(rng, f"Is there a {a.words}?", f"Does the picture show a {a.words}?")
        return _settled("exist", text, (a,), scene)

    return _balanced(rng, draw)


def _attribute(scene: Scene, rng: np.random.Generator) -> Question | None:
    a = _unique(scene, rng)
    if a is None:
        return None
    free = [name for name in ATTRIBUTES if name not in dict(a.values)]
    asked = free[int(rng.integers(len(free)))]
    text = _pick(rng, f"What {asked} is the {a.words}?", f"What is the {asked} of the {a.words}?")
    return _settled("attribute", text, (a,), scene, asked)


def _relation(scene: Scene, rng: np.random.Generator) -> Question | None:
    def draw() -> Question | None:
        a, b = _unique(scene, rng), _unique(scene, rng)
        if a is None or b is None or any(a.fits(thing) and b.fits(thing) for thing in scene.things):
            return None
        asked = _pick(rng, *RELATIONS)
        text = _pick(
            rng, f"Is the {a.words} {asked} the {b.words}?", f"Does the {a.words} stand {asked} the {b.words}?"
        )
        return _settled("relation", text, (a, b), scene, asked)

    return _balanced(rng, draw)


_ASK: Mapping[Family, Callable[[Scene, np.random.Generator], Question | None]] = {
    "subtract": _subtract,
    "compare": _compare,
    "count": _count,
    "exist": _exist,
    "attribute": _attribute,
    "relation": _relation,
}


def _with_choices(question: Question, rng: np.random.Generator) -> Question:
    """The question as it is or, for a share of them, with lettered choices and a letter for an answer."""
    if rng.random() >= CHOICE_SHARE:
        return question
    others = [option for option in options(question) if option != question.answer]
    chosen = [others[i] for i in rng.permutation(len(others))[: len(LETTERS) - 1]]
    if question.answer.isdigit():
        choices = sorted([*chosen, question.answer])
    else:
        mixed = [*chosen, question.answer]
        choices = [mixed[i] for i in rng.permutation(len(mixed))]
    return replace(question, choices=tuple(choices), answer=LETTERS[choices.index(question.answer)])


def options(question: Question) -> list[str]:
    """Results that a question can have, the right one among them; of numbers those near to it that a scene can have."""
    if question.family == "attribute":
        return list(ATTRIBUTES[question.asked])
    if question.family in ("subtract", "count"):
        near = int(question.choices[LETTERS.index(question.answer)] if question.choices else question.answer)
        return [str(n) for n in range(max(0, near - 3), min(near + 3, len(PLACES)) + 1)]
    return ["yes", "no"]
