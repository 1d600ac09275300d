"""Data goes to stdout, as text for people or as JSON for programs; everything else goes to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.terminal.exits import CommandError, as_command_error
from orchestrator.cli.terminal.fit import columns, field_lines, heading, table_layout
from orchestrator.cli.terminal.safe import one_line, plain, to_json
from reasoning.errors import StagebeamError

if TYPE_CHECKING:
    from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout: one document, or one line each for lists.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and change nothing.")]

CELL_WIDTH = 60
"""Characters of a table cell at most."""
PIPE_WIDTH = 200
"""No terminal, no width: what reads a pipe can wrap for itself."""
ANY_HEIGHT = 25


def say(text: str) -> None:
    """One line for people, on stderr."""
    sys.stderr.write(plain(text) + "\n")
    sys.stderr.flush()


def write(text: str) -> None:
    """Data for people, on stdout."""
    sys.stdout.write(plain(text) + "\n")
    sys.stdout.flush()


def document(data: Mapping[str, Any], *, as_json: bool) -> None:
    """One thing: a JSON document (on one line for programs, which may read line by line), or a line per field.

    On a terminal long fields are cut and wrapped to its width.
    """
    if as_json:
        write(to_json(data, indent=2 if sys.stdout.isatty() else None))
        return
    flat = list(_flat(data))
    width, terminal = max((len(name) for name, _ in flat), default=0), columns()
    for name, value in flat:
        for line in field_lines(name, _cell(value, name), width, terminal):
            write(line)


def listing(rows: Iterable[Mapping[str, Any]], fields: Sequence[str], *, as_json: bool) -> None:
    """Many things: a JSON line each, or a table. `fields` are paths such as `counts.done`, the id first.

    Where a table does not fit the terminal without breaking ids, each thing has its fields below one another.
    """
    if as_json:
        for row in rows:
            write(to_json(row))
        return
    cells = [[one_line(_cell(_at(row, name), name), CELL_WIDTH) for name in fields] for row in rows]
    terminal = columns()
    layout = table_layout(fields, cells, terminal)
    if layout is None:
        _below(fields, cells, terminal)
        return
    table = _table(fields, *layout)
    for texts in cells:
        table.add_row(*texts)
    _print(table, to_stderr=False)


def _below(fields: Sequence[str], cells: Sequence[Sequence[str]], terminal: int | None) -> None:
    width = max(map(len, fields))
    for place, row in enumerate(cells):
        if place:
            write("")
        for name, cell in zip(fields, row, strict=True):
            for line in field_lines(name, cell, width, terminal):
                write(line)


def report(error: StagebeamError, *, as_json: bool) -> int:
    """Tell about an error on stderr; returns the exit code."""
    told = as_command_error(error)
    if as_json:
        body = {"message": told.message, "code": told.code or None, "details": list(told.details)}
        say(to_json({"error": body}))
        return told.exit_code
    say(f"error: {told.message}")
    if [record.get("message") for record in told.details] != [told.message.removeprefix(f"{_field_of(told)}: ")]:
        show_details(told)
    return told.exit_code


def _field_of(error: CommandError) -> Any:
    return error.details[0].get("field") if error.details else None


def show_details(error: CommandError) -> None:
    """The bad lines of an input as a table on stderr: line, field, code and what to do."""
    if not error.details:
        return
    fields = ("line", "field", "code", "message")
    table = _table(fields)
    for record in error.details:
        # Advice is never cut: it says what to do.
        table.add_row(*(plain(_cell(record.get(name), name)) for name in fields))
    _print(table, to_stderr=True)


def _table(fields: Sequence[str], padding: int = 1, widths: Sequence[int | None] = ()) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, padding))
    for name, width in zip_longest(fields, widths):
        table.add_column(heading(name), overflow="fold", width=width)
    return table


def _print(table: Table, *, to_stderr: bool) -> None:
    from rich.console import Console

    # A table was made for the terminal's width; by itself a console takes a dumb terminal for a narrow one.
    width = None if to_stderr else columns()
    console = Console(stderr=to_stderr, markup=False, highlight=False, width=width, height=width and ANY_HEIGHT)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(table)


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _at(row: Mapping[str, Any], path: str) -> Any:
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _cell(value: Any, name: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if name.endswith("_at") and isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return repr(round(value, 3)) if isinstance(value, float) else to_json(value)
