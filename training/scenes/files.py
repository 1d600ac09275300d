"""Writes a set of scenes to a folder: images, questions ready for submission, and a VLMEvalKit table."""

from __future__ import annotations

import base64
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast, get_args

from PIL import Image

from reasoning.errors import BadInput, nearest
from training.scenes.questions import LETTERS, Question, ask
from training.scenes.render import render
from training.scenes.world import THINGS, Level, Scene, Split, draw, stream

_ID = re.compile(rf"({'|'.join(get_args(Split))})-({'|'.join(get_args(Level))})-(\d{{1,18}})-(\d{{1,7}})")

MOST_ROWS = 1_000_000
"""More rows than this in one folder is taken for a typing error."""


def scenes(seed: int, count: int, level: Level, split: Split = "test") -> Iterator[tuple[Scene, Question]]:
    """Scene and question of each row of a set: the same for the same arguments, on every machine.

    Raises:
        BadInput: unknown level or split, or a seed out of range.
    """
    _check(seed, level, split)
    for index in range(count):
        yield _row(split, level, seed, index)


def scene_of(custom_id: str) -> tuple[Scene, Question] | None:
    """Scene and question of a line that `write` wrote, drawn again from its id; None for any other id."""
    found = _ID.fullmatch(custom_id)
    if not found:
        return None
    return _row(cast("Split", found[1]), cast("Level", found[2]), int(found[3]), int(found[4]))


def _row(split: Split, level: Level, seed: int, index: int) -> tuple[Scene, Question]:
    rng = stream(split, seed, index)
    scene = draw(rng, *THINGS[level])
    return scene, ask(scene, rng)


def write(seed: int, count: int, level: Level, out: Path, split: Split = "test") -> Path:
    """Write `count` scenes below `out`: `images/`, `questions.jsonl` and `questions.tsv`.

    Each line of `questions.jsonl` is an input line of a job with the known `answer` beside it; image paths are
    relative to `out`. The table has VLMEvalKit's columns. Returns the path of `questions.jsonl`.

    Raises:
        BadInput: unknown level or split, a seed or count out of range.
    """
    if not 1 <= count <= MOST_ROWS:
        raise BadInput(f"count is {count}; use 1 to {MOST_ROWS}", code="invalid_value", field="count")
    _check(seed, level, split)
    rows = scenes(seed, count, level, split)
    (out / "images").mkdir(parents=True, exist_ok=True)
    target = out / "questions.jsonl"
    with target.open("w", encoding="utf-8") as lines, (out / "questions.tsv").open("w", newline="") as table:
        sheet = csv.writer(table, delimiter="\t", lineterminator="\n")
        sheet.writerow(["index", "image", "question", *LETTERS, "answer", "category"])
        for index, (scene, question) in enumerate(rows):
            name = f"images/{index:06d}.png"
            Image.fromarray(render(scene)).save(out / name)
            lines.write(json.dumps(_line(f"{split}-{level}-{seed}-{index:06d}", name, question)) + "\n")
            sheet.writerow(_sheet_row(index, out / name, question))
    return target


def _check(seed: int, level: Level, split: Split) -> None:
    if level not in THINGS:
        raise BadInput(
            f'unknown level "{level}".{nearest(level, get_args(Level))}', code="invalid_value", field="level"
        )
    stream(split, seed, 0)


def _line(custom_id: str, image: str, question: Question) -> dict[str, object]:
    line: dict[str, object] = {"custom_id": custom_id, "question": question.text, "images": [image]}
    if question.choices:
        line["choices"] = list(question.choices)
    return {**line, "answer": question.answer}


def _sheet_row(index: int, image: Path, question: Question) -> list[object]:
    options = [*question.choices, *[""] * len(LETTERS)][: len(LETTERS)]
    encoded = base64.b64encode(image.read_bytes()).decode()
    return [index, encoded, question.text, *options, question.answer, question.family]
