"""The exact teacher: the program that knows the scene writes the four stages in words.

The text is made for a model of a few million parameters: short, local, every thing by its number. In the
REASONING each thing is repeated; then each description is held against it word by word, up to the first word that
does not fit. In the careful manner the running result follows, and the choices are held against the result one by
one; in the hasty one both have to be put together at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reasoning.stages import STAGES, Stage
from training.scenes.questions import LETTERS, RELATIONS, Question
from training.scenes.world import PLACES, Scene, Thing

Stages = dict[Stage, str]
"""The inner text of each stage."""


Manner = Literal["careful", "hasty"]


@dataclass(frozen=True, slots=True)
class Reasoned:
    """A REASONING text, its result and the value it ends on: the result, or the letter of that choice."""

    text: str
    result: str
    value: str


def teach(scene: Scene, question: Question, manner: Manner = "careful") -> Stages:
    """The four stages for a question, ending on its known answer."""
    return {
        Stage.SUMMARY: summary(question),
        Stage.CAPTION: caption(scene),
        Stage.REASONING: reason(scene, question, manner=manner).text,
        Stage.CONCLUSION: question.answer,
    }


def tagged(stages: Mapping[Stage, str]) -> str:
    """The stages between their tags, as the policy writes them."""
    return "".join(f"{stage.open_tag}{stages[stage]}{stage.close_tag}" for stage in STAGES if stage in stages)


def summary(question: Question) -> str:
    """The plan: the descriptions in one wording, and what to do with them."""
    first, *rest = (condition.words for condition in question.conditions)
    match question.family:
        case "subtract":
            return f"Drop each {first} or {rest[0]}, count the rest."
        case "compare":
            return f"Count first {first}, second {rest[0]}, compare."
        case "count":
            return f"Count each {first}."
        case "exist":
            return f"Look for {first}."
        case "attribute":
            return f"Find the {first}, name its {question.asked}."
    return f"Find first {first}, second {rest[0]}, check {question.asked}."


def caption(scene: Scene) -> str:
    """Every thing by number, place and attributes, in reading order."""
    return " ".join(f"#{number} {thing.name}" for number, thing in enumerate(scene.things, 1))


Checks = tuple[bool, ...]
"""Whether each description of a question fits a thing."""


def checks(question: Question, thing: Thing) -> Checks:
    """What the program finds of one thing."""
    return tuple(condition.fits(thing) for condition in question.conditions)


def reason(
    scene: Scene,
    question: Question,
    wrong: Mapping[int, Checks] | None = None,
    *,
    result: str | None = None,
    manner: Manner = "careful",
) -> Reasoned:
    """What holds of each thing, then the result.

    To show a judge what mistakes look like, `wrong` replaces the checks of some things (by place in the scene), a
    mistake that is carried on, and `result` stands for what follows from the checks.
    """
    said = [(wrong or {}).get(i, checks(question, thing)) for i, thing in enumerate(scene.things)]
    parts = ["check"] if manner == "hasty" else []
    for place, thing in enumerate(scene.things):
        parts += [f"#{place + 1}", thing.name, *_held(question, thing, said[place])]
        if manner == "careful":
            parts += _running(scene, question, said[: place + 1])
    result = result or _result(scene, question, said)
    parts.append(f"so {_compared(scene, question, said)}{result}")
    if not question.choices:
        return Reasoned(" ".join(parts), result, result)
    letter = LETTERS[question.choices.index(result)] if result in question.choices else "none"
    if manner == "careful":
        parts += _options(question, result)
    parts.append(f"option {letter}")
    return Reasoned(" ".join(parts), result, letter)


def _options(question: Question, result: str) -> list[str]:
    """The choices one by one, up to the one that the result is: `A 0 no B 2 yes`."""
    words: list[str] = []
    for letter, choice in zip(LETTERS, question.choices, strict=False):
        words += [letter, choice, _yes(choice == result)]
        if choice == result:
            break
    return words


def _held(question: Question, thing: Thing, said: Checks) -> list[str]:
    """Each description word by word, what is wanted and what is there: `first tiny tiny yes shiny matte no`.

    A check said wrong is wrong in its last word.
    """
    words: list[str] = []
    for ordinal, condition, fits in zip(("first", "second"), question.conditions, said, strict=False):
        words.append(ordinal)
        for place, (name, wanted) in enumerate(condition.values):
            last = place + 1 == len(condition.values)
            there = str(getattr(thing, name))
            matches = there == wanted
            if fits:
                matches = True
            elif last:
                matches = False
            words += [wanted, there, _yes(matches)]
            if not matches:
                break
    return words


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _running(scene: Scene, question: Question, said: list[Checks]) -> list[str]:
    """What is known after the last of the things said so far: the counts, or what was found.

    In brackets, which stand nowhere else: a small model finds the last of them with ease, and so carries it along.
    """
    match question.family:
        case "subtract":
            kept = sum(not any(fits) for fits in said)
            return ["drop" if any(said[-1]) else "keep", f"({kept})"]
        case "count" | "exist":
            return [f"({_number(said, 0)})"]
        case "compare":
            return [f"({_number(said, 0)})", f"[{_number(said, 1)}]"]
        case "attribute":
            found = _found(scene, said, 0)
            return [f"({getattr(found, question.asked) if found else 'none'})"]
    first, second = (_found(scene, said, which) for which in (0, 1))
    return [f"({PLACES[first.place] if first else 'none'})", f"[{PLACES[second.place] if second else 'none'}]"]


def _number(said: list[Checks], which: int) -> int:
    return sum(fits[which] for fits in said)


def _compared(scene: Scene, question: Question, said: list[Checks]) -> str:
    """What the result rests on, for the families that compare two things."""
    if question.family == "compare":
        return f"({_number(said, 0)}) vs [{_number(said, 1)}] "
    if question.family == "relation":
        first, second = (_found(scene, said, which) for which in (0, 1))
        places = f"{_place(first)} vs {_place(second)} "
        return f"{places}{_along(question, first)} vs {_along(question, second)} "
    return ""


def _found(scene: Scene, said: list[Checks], which: int) -> Thing | None:
    return next((thing for thing, fits in zip(scene.things, said, strict=False) if fits[which]), None)


def _place(thing: Thing | None) -> str:
    return PLACES[thing.place] if thing else "unknown"


def _along(question: Question, thing: Thing | None) -> str:
    """Where a thing stands along the direction that is asked for."""
    if thing is None:
        return "unknown"
    if question.asked in ("above", "below"):
        return ("top", "center", "bottom")[thing.row]
    return ("left", "center", "right")[thing.column]


def _result(scene: Scene, question: Question, said: list[Checks]) -> str:
    """What follows from the checks as said, right or wrong."""
    match question.family:
        case "subtract":
            return str(sum(not any(fits) for fits in said))
        case "count":
            return str(_number(said, 0))
        case "compare":
            return _yes(_number(said, 0) > _number(said, 1))
        case "exist":
            return _yes(_number(said, 0) > 0)
        case "attribute":
            found = _found(scene, said, 0)
            return str(getattr(found, question.asked)) if found else "unknown"
    first, second = _found(scene, said, 0), _found(scene, said, 1)
    if first is None or second is None:
        return "unknown"
    return _yes(RELATIONS[question.asked](first, second))
