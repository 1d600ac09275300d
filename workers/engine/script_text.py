"""What the scripted engine writes: plausible stages and verdicts that follow from hashes alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from reasoning.prompts import Prompt
from reasoning.stages import STAGES, Stage

_OPTION = re.compile(r"^([A-Z])\. ", re.MULTILINE)
_SHOWN = (
    re.compile(r"\nResponse 1: (.*)\nResponse 2: (.*)\nRemember: ", re.DOTALL),
    re.compile(r"\n1 : (.*)\n2 : (.*)\nbetter :", re.DOTALL),
)

_PHRASES: dict[Stage, tuple[str, ...]] = {
    Stage.SUMMARY: (
        "I will look at the image, find what the question names, and compare.",
        "I will first describe the scene, then count what the question asks for.",
        "I will find the relevant objects and read off their properties.",
        "I will list the parts of the image that matter and decide from them.",
    ),
    Stage.CAPTION: (
        "The image shows several simple shapes on a plain background.",
        "There are a few objects of different colours; one of them is larger than the rest.",
        "The picture holds a row of objects with clear outlines and one label.",
        "A plain scene: some coloured figures, evenly spaced, nothing hidden.",
    ),
    Stage.REASONING: (
        "First I find the object in question. Its colour and place are plain to see. The rest does not fit.",
        "I count from left to right and keep only what matches. Then I check the total once more.",
        "Two objects could be meant. The larger one fits the wording better, so I take it.",
        "The label settles it: what it names is what the question asks for.",
    ),
}
_CLOSE_TAGS = tuple(stage.close_tag for stage in STAGES)
_ANSWERS = ("yes", "no", "red", "blue", "two", "three", "left", "circle")


def fraction(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing but the parts."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big") / 2**56


def pick(items: Sequence[str], *parts: object) -> str:
    """One of the items, chosen by the hash of the parts."""
    return items[int(fraction(*parts) * len(items))]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the last user message asks for."""

    question: str
    form: str
    """`stages`, `compare`, `compact` (a comparison answered with the bare label) or `check`."""
    shown: tuple[str, str] = ("", "")


def read(prompt: Prompt) -> Asked:
    """Recognise the prompts of `reasoning.prompts`; anything else counts as a question."""
    text = next((m.text for m in reversed(prompt.messages) if m.role == "user"), "")
    for pattern, form in zip(_SHOWN, ("compare", "compact"), strict=True):
        if match := pattern.search(text):
            return Asked(text, form, (match[1], match[2]))
    return Asked(text, "check" if text.startswith("Check a line of thought.") else "stages")


def due_stages(prefix: str, stop: str) -> tuple[Stage, ...]:
    """The stages still to be written after `prefix`, up to the one that `stop` closes."""
    last = _CLOSE_TAGS.index(stop) if stop in _CLOSE_TAGS else len(STAGES) - 1
    done = max((place for place, tag in enumerate(_CLOSE_TAGS) if tag in prefix), default=-1)
    return STAGES[min(done + 1, last) : last + 1]


def stage_text(stage: Stage, question: str, digest: str, seed: int) -> str:
    """The tagged text of one stage. Few phrases per part, so that equal texts under different seeds do occur."""
    if stage is not Stage.CONCLUSION:
        first, second = (pick(_PHRASES[stage], digest, seed, stage, part) for part in range(2))
        inner = first if first == second else f"{first} {second}"
    else:
        answers = _OPTION.findall(question) or _ANSWERS
        sure = fraction(digest, seed, "sure") < 0.7
        inner = pick(answers, question) if sure else pick(answers, digest, seed, "answer")
    return f"{stage.open_tag}{inner}{stage.close_tag}"


def preference(shown: tuple[str, str]) -> float:
    """Probability that the first text is the better one; swapping the texts gives the complement."""
    first, second = (fraction("quality", text) + 1e-6 for text in shown)
    return first / (first + second)


def verdict_text(asked: Asked, digest: str, *, off_format: bool) -> str:
    """What a judge writes: a comparison in the published form, a bare label, or one word of a check."""
    if off_format:
        return "<SUMMARY>Both responses have their merits.</SUMMARY>"
    if asked.form == "check":
        return "correct" if fraction(digest, "check") < 0.8 else "incorrect"
    label = "1" if preference(asked.shown) >= 0.5 else "2"
    return label if asked.form == "compact" else f"Since it makes fewer errors, I choose response {label}."
