"""Which column is what: guesses from names, and rows turned into query lines."""

from __future__ import annotations

import ast
import math
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from orchestrator.datasets.cells import images_of
from orchestrator.datasets.numbers import as_number
from orchestrator.datasets.spec import Line, Row, SourceSpec
from reasoning.errors import BadInput, nearest

GUESSES: Mapping[str, tuple[str, ...]] = {
    "custom_id": ("custom_id", "id", "index", "question_id", "qid", "uid", "key", "doc_id", "sample_id"),
    "question": ("question", "query", "prompt", "text", "instruction", "problem", "input"),
    "images": ("images", "image", "image_path", "image_paths", "image_url", "img", "img_path", "picture", "file_name",
               "filename", "path", "decoded_image"),
    "choices": ("choices", "options"),
    "answer": ("answer", "label", "target", "ground_truth", "gt_answer", "gt", "solution", "correct_answer"),
    "hint": ("hint",),
}  # fmt: skip
"""Names by part, the likelier first; compared without regard to case."""

MAX_METADATA_BYTES = 4096
"""A longer value is left out of the metadata."""

MAX_WHOLE = 2**63
"""Whole numbers of this size and more are text, as JSON and tables keep no more digits."""

Numbers = Callable[[frozenset[str]], frozenset[str]]
"""Given the columns that are parts of the question, which of the others hold numbers though their cells are text."""

_NUMBERED = re.compile(r"(image|img|picture)_?\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of each part; a part without one is not there."""

    custom_id: str | None
    question: str | None
    images: tuple[str, ...]
    choices: tuple[str, ...]
    """One column that holds a list, or one column a choice (`A`, `B`, ...)."""
    answer: str | None
    hint: str | None
    context: str | None
    template: str | None
    """The one question for every row."""

    @property
    def used(self) -> frozenset[str]:
        """The names of all columns that are a part of the question."""
        single = (self.custom_id, self.question, self.answer, self.hint, self.context)
        return frozenset(name for name in (*single, *self.images, *self.choices) if name is not None)

    def to_json(self) -> dict[str, Any]:
        """What people are shown; parts that are not there are left out."""
        shown: dict[str, Any] = {name: getattr(self, name) for name in ("custom_id", "question", "answer", "hint")}
        shown |= {"images": list(self.images), "choices": list(self.choices), "context": self.context}
        if self.template is not None:
            shown["question"] = f"text: {self.template}"
        return {name: value for name, value in shown.items() if value}


def find_columns(names: Sequence[str], spec: SourceSpec) -> Columns:
    """The columns of a table with these names: those that `spec` names, the others by guess.

    Raises:
        BadInput: a named column is not there, or there is neither a question nor a column of questions.
    """
    given = {part: [value] if isinstance(value, str) else list(value) for part, value in spec.columns.items()}
    for part, wanted in given.items():
        for name in wanted:
            if name and name not in names:
                raise BadInput(
                    f'there is no column "{name}" for {part}.{nearest(name, names)} Columns: {", ".join(names)}.',
                    code="unknown_column",
                    field=f"columns.{part}",
                )

    def chosen(part: str) -> list[str]:
        if part in given:
            return [name for name in given[part] if name]
        return guess(part, names)

    def one(part: str) -> str | None:
        found = chosen(part)
        return found[0] if found else None

    columns = Columns(
        custom_id=one("custom_id"),
        question=one("question"),
        images=tuple(chosen("images")),
        choices=tuple(chosen("choices")),
        answer=one("answer"),
        hint=one("hint"),
        context=one("context") if "context" in given else None,
        template=spec.question,
    )
    if columns.question is None and columns.template is None:
        raise BadInput(
            "no column looks like a question; name it (--column question=NAME), or give one question for all rows "
            f"(--question TEXT). Columns: {', '.join(names)}.",
            code="no_question",
            field="columns.question",
        )
    return columns


def guess(part: str, names: Sequence[str]) -> list[str]:
    """The columns that a part is taken from when nobody says."""
    by_lower = {name.lower(): name for name in reversed(names)}
    if part == "images":
        numbered = [name for name in names if _NUMBERED.fullmatch(name)]
        if numbered:
            return sorted(numbered, key=lambda name: (re.sub(r"\d", "", name), int(re.sub(r"\D", "", name))))
    if part == "choices" and "A" in names and "B" in names:
        letters = [letter for letter in string.ascii_uppercase if letter in names]
        return [letter for place, letter in enumerate(letters) if letter == string.ascii_uppercase[place]]
    return [by_lower[name] for name in GUESSES.get(part, ()) if name in by_lower][:1]


def to_lines(rows: Iterable[Row], columns: Columns, numbers: Numbers = lambda _: frozenset()) -> Iterator[Line]:
    """The rows as native lines. A row that cannot be one becomes a line that says why.

    `numbers` is asked when the first line is.
    """
    used = columns.used
    texts = numbers(used)
    for number, row in enumerate(rows, start=1):
        if is_marker(row):
            yield dict(row)
            continue
        try:
            yield _line(row, number, columns, used, texts)
        except BadInput as error:
            yield {"error": {"code": error.code, "message": error.message}}


def is_marker(row: Row) -> bool:
    """Whether this stands for a row that could not be read, and says why."""
    error = row.get("error")
    return len(row) == 1 and isinstance(error, Mapping) and set(error) == {"code", "message"}


def _line(row: Row, number: int, columns: Columns, used: frozenset[str], numbers: frozenset[str]) -> Line:
    line: Line = {
        "custom_id": _id(row, number, columns),
        "question": _question(row, columns),
        "images": [image for name in columns.images for image in images_of(row.get(name), name)],
    }
    choices = _choices(row, columns)
    if choices:
        line["choices"] = choices
    answer = _plain(row.get(columns.answer)) if columns.answer else None
    if answer is not None:
        line["answer"] = answer
    if columns.context and row.get(columns.context):
        line["context"] = _decoded(row[columns.context])
    found = {name: _kept(as_number(row[name]) if name in numbers else row[name]) for name in row if name not in used}
    metadata = {name: orjson.loads(text) for name, text in found.items() if text is not None}
    if metadata:
        line["metadata"] = metadata
    return line


def _id(row: Row, number: int, columns: Columns) -> str:
    value = _plain(row.get(columns.custom_id)) if columns.custom_id else None
    return f"row-{number}" if value is None or value == "" else str(value)


def _question(row: Row, columns: Columns) -> str:
    if columns.template is not None:
        text = _filled(columns.template, row)
    else:
        value = row.get(columns.question or "")
        text = "" if value is None else str(value)
    hint = row.get(columns.hint) if columns.hint else None
    return f"{hint}\n{text}" if isinstance(hint, str) and hint.strip() else text


def _filled(template: str, row: Row) -> str:
    """The template with `{column}` replaced; braces around anything else stay."""

    def value(found: re.Match[str]) -> str:
        return str(row[found[1]]) if found[1] in row else found[0]

    return re.sub(r"\{([^{}]+)\}", value, template)


def _choices(row: Row, columns: Columns) -> list[str]:
    if len(columns.choices) > 1:
        values = [_plain(row.get(name)) for name in columns.choices]
        while values and values[-1] in (None, ""):
            values.pop()
        return ["" if value is None else str(value) for value in values]
    value = _decoded(row.get(columns.choices[0])) if columns.choices else None
    if isinstance(value, Mapping):
        value = value.get("text") or list(value.values())
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def _decoded(value: Any) -> Any:
    """A list that was written into a text, as JSON or as Python; anything else as it is."""
    if not isinstance(value, str) or not value.strip().startswith(("[", "{", "(")):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        pass
    try:
        return ast.literal_eval(value) if len(value) < MAX_METADATA_BYTES else value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _plain(value: Any) -> Any:
    """A value as JSON holds it: no NaN, whole numbers without a fraction."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() else value
    if isinstance(value, str | int | bool) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    return str(value)


def _kept(value: Any) -> bytes | None:
    """A value as JSON for the metadata; None when it is long or holds bytes."""
    if isinstance(value, float) and math.isnan(value):
        value = None
    try:
        text = orjson.dumps(value, default=_as_json)
    except TypeError:
        return None
    return None if len(text) > MAX_METADATA_BYTES else text


def _as_json(value: Any) -> Any:
    """What JSON has no type for: decimals that a float holds are numbers, all else but bytes is text."""
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("bytes are no text")
    if isinstance(value, Decimal) and value.is_finite():
        number = int(value) if value.as_tuple().exponent == 0 else float(value)
        return number if Decimal(repr(number)) == value and abs(value) < MAX_WHOLE else str(value)
    return str(value)
