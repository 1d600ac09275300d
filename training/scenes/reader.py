"""Reads what a model wrote about a scene: which things a CAPTION names, how far a text is from the truth."""

from __future__ import annotations

import re

from training.scenes import teacher
from training.scenes.questions import Question, value
from training.scenes.world import COLORS, MATERIALS, PLACES, SHAPES, SIZES, Scene, Thing

_NAME = re.compile(
    rf"#(\d) ({'|'.join(sorted(PLACES, key=len, reverse=True))}) ({'|'.join(SIZES)}) ({'|'.join(MATERIALS)})"
    rf" ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})"
)


def read_caption(text: str) -> Scene | None:
    """The scene that a caption describes, or None when it is not in the teacher's form."""
    things = [Thing(found[3], found[4], found[5], found[6], PLACES.index(found[2])) for found in _NAME.finditer(text)]
    scene = Scene(tuple(things))
    return scene if things and teacher.caption(scene) == text else None


def caption_mistakes(truth: Scene, text: str) -> int:
    """Wrong attributes, things made up and things missed; 99 for a caption that is not in the teacher's form."""
    seen = read_caption(text)
    if seen is None:
        return 99
    there, said = ({thing.place: thing for thing in scene.things} for scene in (truth, seen))
    wrong = sum(
        bool(getattr(there[place], name) != getattr(said[place], name))
        for place in there.keys() & said.keys()
        for name in ("size", "material", "color", "shape")
    )
    return wrong + 2 * len(there.keys() ^ said.keys()) + 2 * (len(said) != len(seen.things))


def reasoning_mistakes(question: Question, caption: str, text: str) -> int:
    """How many words a REASONING has wrong, with its caption taken for true; 99 when it cannot be told."""
    seen = read_caption(caption)
    if seen is None:
        return 99
    right, said = teacher.reason(seen, question).text.split(), text.split()
    if len(right) != len(said):
        return 50
    return sum(a != b for a, b in zip(right, said, strict=True))


def expected_conclusion(question: Question, caption: str) -> str | None:
    """The answer that follows from a caption, right or wrong; None when the caption cannot be read."""
    seen = read_caption(caption)
    if seen is None:
        return None
    result = value(question, seen)
    if question.choices:
        return teacher.reason(seen, question).value
    return result
