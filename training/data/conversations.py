"""Rows in the format of LLaVA-CoT-100k: `id`, `image`, `conversations` of `from` and `value`, one round or several.

Every row is checked when it is read, and everything that is wrong is named by file, line and field.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from reasoning.errors import BadInput

IMAGE_MARK = "<image>"
"""Placeholder that some rows of the public data set carry in a value; it is dropped, images come first."""
_SHOWN = 20
"""Problems named in one message."""


@dataclass(frozen=True, slots=True)
class Round:
    """One question and what the model should answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row; `image` is a path relative to the image folder and belongs to the first question."""

    id: str
    image: str
    rounds: tuple[Round, ...]

    def to_json(self) -> dict[str, Any]:
        """The row as it stands in a file."""
        turns = [turn for r in self.rounds for turn in (("human", r.question), ("gpt", r.answer))]
        return {
            "id": self.id,
            "image": self.image,
            "conversations": [{"from": speaker, "value": value} for speaker, value in turns],
        }


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row, and where."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: {self.message}"


def read(paths: Sequence[Path], images: Path | None) -> list[Conversation]:
    """All rows of some files. With `images`, each row's image must be a file below that folder.

    Raises:
        BadInput: anything wrong with a file or a row; the message names the first twenty by file, line and field.
    """
    rows: list[Conversation] = []
    problems: list[Problem] = []
    for path in paths:
        if not path.is_file():
            raise BadInput(f"{path} is not a file; name a JSON-lines file of rows", code="missing_file", field="rows")
        for row in scan(path, images):
            if isinstance(row, Problem):
                problems.append(row)
            else:
                rows.append(row)
    if problems:
        more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        listed = "\n".join(str(problem) for problem in problems[:_SHOWN])
        raise BadInput(
            f"{len(problems)} problems in the rows; mend or drop them:\n{listed}{more}",
            code="invalid_rows",
            field=problems[0].field,
            line=problems[0].line,
        )
    return rows


def scan(path: Path, images: Path | None) -> Iterator[Conversation | Problem]:
    """Rows of one file, or what is wrong with them; blank lines are skipped."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield parse(line, images)
            except BadInput as error:
                yield Problem(str(path), number, error.field or "line", error.message)


def parse(line: str, images: Path | None) -> Conversation:
    """One row from its JSON text. Raises BadInput with the field."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise _bad("line", f"not JSON ({error})") from None
    if not isinstance(record, dict):
        raise _bad("line", f"{type(record).__name__}; it must be an object")
    name = record.get("id")
    if not isinstance(name, str | int) or isinstance(name, bool) or name == "":
        raise _bad("id", "missing, or neither text nor a number")
    return Conversation(str(name), _image(record.get("image"), images), _rounds(record.get("conversations")))


def write(rows: Iterable[Conversation], out: Path) -> int:
    """Write rows to a file, which appears only when it is whole. Returns how many."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    count = 0
    with part.open("w", encoding="utf-8") as file:
        for count, row in enumerate(rows, 1):  # noqa: B007 - the number of the last is the count
            file.write(json.dumps(row.to_json(), ensure_ascii=False) + "\n")
    part.replace(out)
    return count


def _image(value: Any, images: Path | None) -> str:
    if not isinstance(value, str) or not value:
        raise _bad("image", "missing; name one image, relative to the image folder")
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts:
        raise _bad("image", f'"{value}" leaves the image folder; use a relative path below it')
    if images is not None and not (images / path).is_file():
        raise _bad("image", f"{images / path} is not there")
    return value


def _rounds(value: Any) -> tuple[Round, ...]:
    if not isinstance(value, list) or not value:
        raise _bad("conversations", "missing or empty; it must be a list of turns")
    if len(value) % 2:
        raise _bad("conversations", f"{len(value)} turns; every human turn needs its gpt turn")
    texts: list[str] = []
    for place, turn in enumerate(value):
        speaker = ("human", "gpt")[place % 2]
        where = f"conversations[{place}]"
        if not isinstance(turn, dict) or turn.get("from") != speaker:
            raise _bad(f"{where}.from", f'must be "{speaker}" here')
        text = turn.get("value")
        text = text.replace(IMAGE_MARK, "").strip() if isinstance(text, str) else ""
        if not text:
            raise _bad(f"{where}.value", "missing or empty")
        texts.append(text)
    return tuple(Round(question, answer) for question, answer in zip(texts[::2], texts[1::2], strict=True))


def _bad(field: str, message: str) -> BadInput:
    return BadInput(message, code="invalid_row", field=field)
