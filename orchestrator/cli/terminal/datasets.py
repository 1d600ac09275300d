"""Flags that say what a dataset is, and sending one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.terminal.client import Api
from orchestrator.cli.terminal.exits import CommandError, Exit
from orchestrator.cli.terminal.output import say
from orchestrator.cli.terminal.submission import send_file, send_pieces

if TYPE_CHECKING:
    from orchestrator.datasets.spec import Source, SourceSpec

Format = Annotated[
    str | None, typer.Option("--format", help="jsonl, csv, tsv, vlmevalkit, parquet, huggingface, images, ...")
]
Column = Annotated[list[str] | None, typer.Option("--column", help="PART=NAME, such as question=prompt; repeatable.")]
Question = Annotated[str | None, typer.Option(help="One question for every row; {column} stands for its value.")]
Split = Annotated[str | None, typer.Option(help="Split of a Hugging Face folder.")]
Rows = Annotated[int | None, typer.Option("--limit", min=1, help="Rows at most.")]

OBJECTS = "object:"
"""What an input begins with that lies in the server's object store."""


@dataclass(frozen=True, slots=True)
class Flags:
    """The dataset flags as they were given."""

    format: str | None
    column: list[str] | None
    question: str | None
    split: str | None
    limit: int | None

    @property
    def given(self) -> bool:
        return any((self.format, self.column, self.question, self.split, self.limit))

    def columns(self) -> dict[str, str | list[str]]:
        """Column by part; a part given twice has several. Raises CommandError."""
        found: dict[str, list[str]] = {}
        for text in self.column or ():
            part, equals, name = text.partition("=")
            if not equals:
                message = f'--column "{text}" has no "="; write PART=NAME, such as question=prompt'
                raise CommandError(message, exit_code=Exit.BAD_INPUT, code="invalid_flag")
            found.setdefault(part, []).append(name)
        return dict(found)

    def fields(self) -> dict[str, Any]:
        """Fields of a dataset that was described."""
        named = {"format": self.format or "auto", "question": self.question, "limit": self.limit}
        return {**named, "columns": self.columns()}


def send_input(api: Api, name: str, roots: Sequence[Path], flags: Flags) -> str:
    """Send an input of any format with its local images; the id of the input file on the server.

    What was guessed of a table is told on stderr.

    Raises:
        CommandError: it cannot be read, or the server refuses something.
        BadInput: it cannot be understood.
    """
    for root in roots:
        if not root.is_dir():
            message = f"--image-root {root} is no folder; name one that holds the images"
            raise CommandError(message, exit_code=Exit.BAD_INPUT, code="invalid_flag")
    if name.startswith(OBJECTS):
        made = api.post("/api/datasets", {"object_prefix": name.removeprefix(OBJECTS), **flags.fields()})
        return str(made["file"]["id"])
    if name == "-" and flags.given:
        message = "stdin is read as JSONL; put a table into a file to name its format and columns"
        raise CommandError(message, exit_code=Exit.BAD_INPUT, code="invalid_flag")
    if name == "-" or not (flags.given or Path(name).exists()):
        return send_file(api, name, roots)
    from orchestrator.datasets.sending import packed
    from orchestrator.datasets.source import open_source
    from orchestrator.datasets.spec import SourceSpec

    spec = SourceSpec(location=Path(name), split=flags.split, **flags.fields())
    source = open_source(spec)
    if source.format == "jsonl" and not source.mapping and not flags.given:
        return send_file(api, name, roots)  # as it is, so that lines keep their numbers
    _tell(spec, source)
    return send_pieces(api, f"{spec.name}.jsonl", lambda has, upload: packed(spec, source, roots, has, upload))


def _tell(spec: SourceSpec, source: Source) -> None:
    say(f"{spec.name} is read as {source.format}")
    for part, column in source.mapping.items():
        say(f"  {part}: {', '.join(column) if isinstance(column, list) else column}")
    for note in source.notes:
        say(f"  note: {note}")
