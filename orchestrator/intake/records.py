"""What validation says about a line: accepted with references to its images, or refused with every reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from reasoning.errors import BadInput
from reasoning.records import Turn

RefKind = Literal["path", "data", "url", "blob", "object", "error"]

MAX_LINE_ERRORS = 20
"""Errors listed for one line; a line with more is broken as a whole."""

LONG_VALUE = 256
"""Characters of a reference that tell it from others well enough for a hash table."""

MAX_MESSAGE = 400
"""Characters of a message: user text inside it is cut, so that a huge line cannot make a huge error."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where an image is to come from. `value` is the text after the prefix, or the whole text for a path or URL.

    A reference of kind `error` stands for an image that the sender could not read: `value` is the message,
    `code` the code.
    """

    kind: RefKind
    value: str
    code: str = ""

    def __hash__(self) -> int:
        value = self.value
        if len(value) > LONG_VALUE:  # reading all of a data URI takes as long as decoding it
            middle = len(value) // 2
            value = value[middle : middle + LONG_VALUE]
        return hash((self.kind, value, len(self.value)))


@dataclass(frozen=True, slots=True)
class LineError:
    """One thing wrong with one line, and what to do about it."""

    line: int
    """1-based."""
    field: str | None
    """Path of the field, such as `images[1]`; None for the whole line."""
    code: str
    message: str

    def to_json(self) -> dict[str, Any]:
        return {"line": self.line, "field": self.field, "code": self.code, "message": self.message}


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line with errors. `custom_id` is the one it gave, if it gave a usable text."""

    errors: tuple[LineError, ...]
    custom_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The submitter's other columns: results joined with the input have them for a bad line too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedLine:
    """A line that is right in itself; its images have not been looked at yet."""

    custom_id: str
    question: str
    images: tuple[ImageRef, ...]
    image_fields: tuple[str, ...]
    """Path of the field of each image, for errors found later."""
    choices: tuple[str, ...] = ()
    context: tuple[Turn, ...] = ()
    policy: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What is kept but not searched: `answer`, `metadata`, and `wire` (model, trace) of the OpenAI line form."""

    def body(self, images: Sequence[str]) -> dict[str, Any]:
        """The `body` column of the query row; `images` are the content hashes in order."""
        return {
            "question": self.question,
            "images": list(images),
            "choices": list(self.choices),
            "context": [{"role": turn.role, "text": turn.text} for turn in self.context],
            "policy": dict(self.policy),
            **self.extra,
        }


class Problems:
    """Collects what is wrong with one line, so that all of it is told at once."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.errors: list[LineError] = []

    @property
    def full(self) -> bool:
        """Whether further errors of this line are not told."""
        return len(self.errors) >= MAX_LINE_ERRORS

    def add(self, code: str, field: str | None, message: str) -> None:
        """Note one error; past `MAX_LINE_ERRORS` the rest of the line is not told."""
        if not self.full:
            self.errors.append(LineError(self.line, shorten(field, 120) if field else None, code, shorten(message)))

    def add_error(self, error: BadInput, prefix: str = "") -> None:
        """Note an error that another part raised, its field below `prefix`."""
        self.add(error.code, f"{prefix}{error.field}" if error.field else prefix or None, error.message)


def shorten(text: str, limit: int = MAX_MESSAGE) -> str:
    """The text, its middle left out when it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}...{text[-limit // 3 :]}"
