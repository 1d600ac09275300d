"""The exact teacher: the program that knows the scene writes the four stages in words.

The text is made for a model of a few million parameters: short, local, every thing by its number. In the
REASONING each thing gets its verdict first and the evidence after it, as people speak ("#2 drop ... because
it is a tiny shiny purple ball"). So a single pass commits before it has written down what it sees, while a
judge reads both: there is something to find out by search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reasoning.stages import STAGES, Stage
from training.scenes.questions import LETTERS, RELATIONS, Question, value
from training.scenes.world import PLACES, Scene, Thing

Stages = dict[Stage, str]
"""The inner text of each stage."""


@dataclass(frozen=True, slots=True)
class Reasoned:
    """A REASONING text and the value it ends on."""

    text: str
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


def verdict(question: Question, thing: Thing) -> str:
    """The word that the program says of one thing."""
    fits = [condition.fits(thing) for condition in question.conditions]
    if question.family == "subtract":
        return "drop" if any(fits) else "keep"
    if question.family in ("compare", "relation"):
        return {(True, True): "both", (True, False): "first", (False, True): "second"}.get((fits[0], fits[1]), "none")
    return "yes" if fits[0] else "no"


def verdicts(question: Question) -> tuple[str, ...]:
    """All words that `verdict` can say for this family."""
    if question.family == "subtract":
        return ("keep", "drop")
    if question.family == "compare":
        return ("first", "second", "both", "none")
    return ("first", "second", "none") if question.family == "relation" else ("yes", "no")


def reason(scene: Scene, question: Question, wrong: Mapping[int, str] | None = None) -> Reasoned:
    """Verdict, running count and evidence for each thing, then the result.

    `wrong` replaces the verdict on some things (by place in the scene): a mistake that is carried on, to show
    a judge what mistakes look like.
    """
    said = [(wrong or {}).get(i, verdict(question, thing)) for i, thing in enumerate(scene.things)]
    parts = [
        " ".join([f"#{i + 1}", said[i], *_counts(question, said[: i + 1]), thing.name])
        for i, thing in enumerate(scene.things)
    ]
    result = _result(scene, question, said) if wrong else value(question, scene)
    parts.append(f"so {_compared(scene, question, said)}{result}")
    if question.choices:
        letter = LETTERS[question.choices.index(result)] if result in question.choices else "none"
        parts.append(f"option {letter}")
        return Reasoned(" ".join(parts), letter)
    return Reasoned(" ".join(parts), result)


def _counts(question: Question, said: list[str]) -> list[str]:
    if question.family == "subtract":
        return [f"({said.count('keep')})"]
    if question.family == "count":
        return [f"({said.count('yes')})"]
    if question.family == "compare":
        return [f"({_first(said)})", f"[{_second(said)}]"]
    return []


def _first(said: list[str]) -> int:
    return said.count("first") + said.count("both")


def _second(said: list[str]) -> int:
    return said.count("second") + said.count("both")


def _compared(scene: Scene, question: Question, said: list[str]) -> str:
    """What the result rests on, for the families that compare two things."""
    if question.family == "compare":
        return f"({_first(said)}) vs [{_second(said)}] "
    if question.family == "relation":
        places = [_place(scene, said, word) for word in ("first", "second")]
        return f"{places[0]} vs {places[1]} "
    return ""


def _found(scene: Scene, said: list[str], word: str) -> Thing | None:
    return next((thing for thing, spoken in zip(scene.things, said, strict=True) if spoken == word), None)


def _place(scene: Scene, said: list[str], word: str) -> str:
    thing = _found(scene, said, word)
    return PLACES[thing.place] if thing else "unknown"


def _result(scene: Scene, question: Question, said: list[str]) -> str:
    """What follows from the verdicts as said, right or wrong."""
    match question.family:
        case "subtract":
            return str(said.count("keep"))
        case "count":
            return str(said.count("yes"))
        case "compare":
            return "yes" if _first(said) > _second(said) else "no"
        case "exist":
            return "yes" if "yes" in said else "no"
        case "attribute":
            found = _found(scene, said, "yes")
            return str(getattr(found, question.asked)) if found else "unknown"
    first, second = _found(scene, said, "first"), _found(scene, said, "second")
    if first is None or second is None:
        return "unknown"
    return "yes" if RELATIONS[question.asked](first, second) else "no"
