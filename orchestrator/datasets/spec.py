"""What a dataset is said to be: where it lies, its format, and which column is what."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast, get_args

from reasoning.errors import BadInput, nearest

Format = Literal[
    "auto", "jsonl", "csv", "tsv", "vlmevalkit", "parquet", "huggingface", "images", "objects", "anthropic", "gemini"
]
FORMATS: tuple[str, ...] = get_args(Format)

Line = dict[str, Any]
"""A native or a chat line; entries of `images` may be bytes."""
Row = Mapping[str, Any]
"""One record of a table by column name, of Python values."""

PARTS = ("custom_id", "question", "images", "choices", "answer", "context", "hint")
"""What a column can be. All other columns become metadata, which joined results give back as columns."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that is open already, such as an object of the store. Seekable."""

    name: str
    stream: BinaryIO


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """A dataset to be read."""

    location: Path | OpenFile
    format: str = "auto"
    columns: Mapping[str, str | list[str]] = field(default_factory=dict)
    """Column (or columns) by part; a part that is not named is guessed, one given as an empty text is left out."""
    question: str | None = None
    """One question for every row, in which `{column}` stands for the row's value; goes before a question column."""
    split: str | None = None
    """Split of a Hugging Face folder; None means the only one, or `test`, `validation`, `train` in that order."""
    limit: int | None = None
    """Rows at most."""

    def open(self) -> BinaryIO:
        """The file from its start. Raises BadInput when it cannot be read, or is a folder."""
        if isinstance(self.location, OpenFile):
            self.location.stream.seek(0)
            return _Kept(self.location.stream)
        try:
            return self.location.open("rb")
        except OSError as error:
            raise BadInput(f"cannot read {self.location}: {error.strerror}", code="unreadable_file") from None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            hint = nearest(self.format, FORMATS)
            raise BadInput(
                f'there is no format "{self.format}".{hint} Use one of: {", ".join(FORMATS)}.',
                code="invalid_value",
                field="format",
            )
        for part in self.columns:
            if part not in PARTS:
                raise BadInput(
                    f'there is no part "{part}".{nearest(part, PARTS)} Columns can be: {", ".join(PARTS)}.',
                    code="unknown_field",
                    field="columns",
                )

    @property
    def name(self) -> str:
        """The file's or folder's own name."""
        return self.location.name

    @property
    def folder(self) -> Path | None:
        """Where relative image paths start; None for a file that lies on no disk."""
        if isinstance(self.location, OpenFile):
            return None
        return self.location if self.location.is_dir() else self.location.parent


class _Kept(io.BufferedReader):
    """A stream that its reader may close while it stays open for the next one."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(cast("io.RawIOBase", stream))

    def close(self) -> None:
        with suppress(ValueError):  # closed before
            self.detach()


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset that was looked at: what it was found to be, and its lines. `lines` can be iterated once."""

    format: str
    mapping: Mapping[str, Any]
    """Column by part, for people; empty where lines come as they are."""
    lines: Iterator[Line]
    notes: tuple[str, ...] = ()
    """What was assumed and may be wrong."""
