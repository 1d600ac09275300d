"""The exact teacher: the program that knows the scene writes the four stages in words.

The text is made for a model of a few million parameters: short, local, every thing by its number. In the
REASONING each thing is repeated; then each description is held against it word by word, up to the first word that
does not fit; then stands what follows for the running count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reasoning.stages import STAGES, Stage
from training.scenes.questions import LETTERS, RELATIONS, Question
from training.scenes.world import PLACES, Scene, Thing

Stages = dict[Stage, str]
"""The inner text of each stage."""


@dataclass(frozen=True, slots=True)
class Reasoned:
    """A REASONING text, its result and the value it ends on: the result, or the letter of that choice."""

    text: str
    result: str
    value: str


def teach(scene: Scene, question: Question) -> Stages:
    """The four stages for a question, ending on its known answer."""
    return {
        Stage.SUMMARY: summary(question),
        Stage.CAPTION: caption(scene),
        Stage.REASONING: reason(scene, question).text,
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
    scene: Scene, question: Question, wrong: Mapping[int, Checks] | None = None, result: str | None = None
) -> Reasoned:
    """Each thing with its checks and the running count, then the result.

    To show a judge what mistakes look like, `wrong` replaces the checks of some things (by place in the scene), a
    mistake that is carried on, and `result` stands for what follows from the checks.
    """
    said = [(wrong or {}).get(i, checks(question, thing)) for i, thing in enumerate(scene.things)]
    parts = [
        " ".join([f"#{i + 1} {thing.name}", *_held(question, thing, said[i]), *_counts(question, said[: i + 1])])
        for i, thing in enumerate(scene.things)
    ]
    result = result or _result(scene, question, said)
    parts.append(f"so {_compared(scene, question, said)}{result}")
    if question.choices:
        letter = LETTERS[question.choices.index(result)] if result in question.choices else "none"
        parts.append(f"option {letter}")
        return Reasoned(" ".join(parts), result, letter)
    return Reasoned(" ".join(parts), result, result)


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


def _counts(question: Question, said: list[Checks]) -> list[str]:
    """The running count after the last of the things said so far, for the families that count."""
    match question.family:
        case "subtract":
            kept = sum(not any(fits) for fits in said)
            return ["drop" if any(said[-1]) else "keep", f"({kept})"]
        case "count":
            return [f"({_number(said, 0)})"]
        case "compare":
            return [f"({_number(said, 0)})", f"[{_number(said, 1)}]"]
    return []


def _number(said: list[Checks], which: int) -> int:
    return sum(fits[which] for fits in said)


def _compared(scene: Scene, question: Question, said: list[Checks]) -> str:
    """What the result rests on, for the families that compare two things."""
    if question.family == "compare":
        return f"({_number(said, 0)}) vs [{_number(said, 1)}] "
    if question.family == "relation":
        first, second = (_found(scene, said, which) for which in (0, 1))
        return f"{_place(first)} vs {_place(second)} "
    return ""


def _found(scene: Scene, said: list[Checks], which: int) -> Thing | None:
    return next((thing for thing, fits in zip(scene.things, said, strict=True) if fits[which]), None)


def _place(thing: Thing | None) -> str:
    return PLACES[thing.place] if thing else "unknown"


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
