"""Numbers in tables whose cells are all text, so that a column of numbers comes back as one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress

from orchestrator.datasets.spec import Row
from reasoning.errors import BadInput

MAX_DIGITS = 24
INT64 = range(-(2**63), 2**63)
"""Whole numbers that tables have a column for."""


def as_number(cell: str) -> int | float | None:
    """The number that a cell holds, if it would be written back as it stands: `007`, `1.50` and `+1` stay text."""
    if not cell.isascii() or len(cell) > MAX_DIGITS:
        return None
    with suppress(ValueError):
        whole = int(cell)
        if str(whole) == cell and whole in INT64:
            return whole
    with suppress(ValueError):
        real = float(cell)
        if repr(real) == cell and math.isfinite(real):
            return real
    return None


def number_columns(rows: Iterable[Row], names: Iterable[str]) -> frozenset[str]:
    """Those of the columns whose filled cells are all numbers. Reads on until none can be one any more."""
    left, filled = set(names), set[str]()
    with suppress(BadInput):  # reading the lines tells where the table breaks off
        for row in rows:
            here = {name for name in left if row.get(name)}
            filled |= here
            left -= {name for name in here if as_number(row[name]) is None}
            if not left:
                break
    return frozenset(left & filled)
