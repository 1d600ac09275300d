"""Data goes to stdout, as text for people or as JSON for programs; everything else goes to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.terminal.exits import CommandError, as_command_error
from orchestrator.cli.terminal.safe import one_line, plain, to_json
from reasoning.errors import StagebeamError

if TYPE_CHECKING:
    from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout: one document, or one line each for lists.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and change nothing.")]

CELL_WIDTH = 60
"""Characters of a table cell at most."""


def say(text: str) -> None:
    """One line for people, on stderr."""
    sys.stderr.write(plain(text) + "\n")
    sys.stderr.flush()


def write(text: str) -> None:
    """Data for people, on stdout."""
    sys.stdout.write(plain(text) + "\n")
    sys.stdout.flush()


def document(data: Mapping[str, Any], *, as_json: bool) -> None:
    """One thing: a JSON document (on one line for programs, which may read line by line), or a line per field."""
    if as_json:
        write(to_json(data, indent=2 if sys.stdout.isatty() else None))
        return
    flat = list(_flat(data))
    width = max((len(name) for name, _ in flat), default=0)
    for name, value in flat:
        write(f"{name:<{width}}  {_cell(value)}")


def listing(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Many things: a JSON line each, or a table. `columns` are field paths such as `counts.done`."""
    if as_json:
        for row in rows:
            write(to_json(row))
        return
    table = _table(columns)
    for row in rows:
        table.add_row(*(one_line(_cell(_at(row, column)), CELL_WIDTH) for column in columns))
    _print(table, to_stderr=False)


def report(error: StagebeamError, *, as_json: bool) -> int:
    """Tell about an error on stderr; returns the exit code."""
    told = as_command_error(error)
    if as_json:
        body = {"message": told.message, "code": told.code or None, "details": list(told.details)}
        say(to_json({"error": body}))
        return told.exit_code
    say(f"error: {told.message}")
    show_details(told)
    return told.exit_code


def show_details(error: CommandError) -> None:
    """The bad lines of an input as a table on stderr: line, field, code and what to do."""
    if not error.details:
        return
    columns = ("line", "field", "code", "message")
    table = _table(columns)
    for record in error.details:
        # Advice is never cut: it says what to do.
        table.add_row(*(plain(_cell(record.get(column))) for column in columns))
    _print(table, to_stderr=True)


def _table(columns: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.rpartition(".")[2].replace("_", " "), overflow="fold")
    return table


def _print(table: Table, *, to_stderr: bool) -> None:
    from rich.console import Console

    console = Console(stderr=to_stderr, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 200  # no terminal, no width: what reads a pipe can wrap for itself
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


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:.1f}" if isinstance(value, float) else to_json(value)
