"""How much of a text a terminal shows: long ones are cut, with a word on how much is left out."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from orchestrator.cli.terminal.safe import plain

LINES = 6
"""Lines of a field at most on a terminal."""
LINES_OF = {"answer": 40}
"""Of what people came for, more."""
NARROW = 30
"""Columns that a value needs beside its name; with fewer it stands below."""
TAB = 4
UNBROKEN = 12
"""Columns of a table up to which a cell is not broken."""
BROKEN = 8
"""Columns that a longer one has at least."""


def columns() -> int | None:
    """The width of the terminal that stdout is; None when it is none, and nothing should be cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def field_lines(name: str, text: str, name_width: int, width: int | None) -> list[str]:
    """A field as lines: the name, and its text beside it or, where that would be narrow, below it.

    `width` is that of the terminal, None for no terminal: then all of the text is there, in its own lines.
    """
    if width is None:
        lines, indent = plain(text).split("\n"), name_width + 2
        return [f"{name:<{name_width}}  {lines[0]}", *(" " * indent + line for line in lines[1:])]
    beside = width - name_width - 2
    room = beside if beside >= NARROW else max(width - 2, 1)
    lines = shortened(text, room, LINES_OF.get(name.rpartition(".")[2], LINES))
    if room == beside:
        return [f"{name:<{name_width}}  {lines[0]}", *(" " * (name_width + 2) + line for line in lines[1:])]
    if len(name) + 2 + len(lines[0]) <= width and len(lines) == 1:
        return [f"{name}  {lines[0]}"]
    return [name, *(f"  {line}" for line in lines)]


def shortened(text: str, room: int, most: int) -> list[str]:
    """The text in at most `most` lines of `room` columns, then one that tells how much more there is."""
    from rich.console import Console
    from rich.text import Text

    whole = plain(text).expandtabs(TAB)
    head = whole[: (most + 1) * room]
    wrapped = Text(head).wrap(Console(width=room), room, overflow="fold")
    lines = [line.plain.rstrip() for line in wrapped] or [""]
    if len(lines) <= most and len(head) == len(whole):
        return lines
    shown = 0
    for line in lines[:most]:
        shown = whole.index(line, shown) + len(line)
    told = f"… {len(whole) - shown:,} more characters"
    all_of_it = f"{told}; --json shows all"
    return [*lines[:most], all_of_it if len(all_of_it) <= room else f"{told} (--json)"]


def heading(field: str) -> str:
    """The title of a table's column."""
    return field.rpartition(".")[2].replace("_", " ")


def table_layout(
    fields: Sequence[str], rows: Sequence[Sequence[str]], width: int | None
) -> tuple[int, list[int]] | None:
    """Spaces around the columns of a table, and how wide each is; the first is never broken. None: it does not fit."""
    from rich.cells import cell_len

    titles = [max(map(len, heading(field).split())) for field in fields]
    natural = [
        max([titles[place], *(cell_len(row[place]) for row in rows)]) if rows else len(heading(field))
        for place, field in enumerate(fields)
    ]
    if width is None:
        return 1, natural
    least = [
        size if place == 0 or size <= UNBROKEN else max(BROKEN, titles[place]) for place, size in enumerate(natural)
    ]
    for padding in (1, 0):
        left = width - sum(least) - (len(fields) - 1) * (2 * padding + 1)
        if left >= 0:
            return padding, _widened(least, natural, left)
    return None


def _widened(widths: list[int], natural: Sequence[int], left: int) -> list[int]:
    """What is left of the width, given to the columns that are broken: those that need least first."""
    found = list(widths)
    short = sorted((place for place in range(len(found)) if found[place] < natural[place]), key=natural.__getitem__)
    for count, place in enumerate(short):
        more = min(natural[place] - found[place], left // (len(short) - count))
        found[place] += more
        left -= more
    return found
