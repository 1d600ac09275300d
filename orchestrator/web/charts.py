"""Small drawings as numbers for SVG attributes: sparklines, stacked bars. No script, no style attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spark:
    """Columns of a series in a box of `width` by `height`; the last, unfinished one is apart."""

    width: int
    height: int
    columns: list[tuple[float, float, float, float]]
    """x, y, width, height of each finished column."""
    partial: tuple[float, float, float, float] | None
    top: float
    """Value of the tallest column."""


def spark(values: Sequence[float], *, width: int = 240, height: int = 48, partial: bool = True) -> Spark:
    """Columns for `values`, oldest first; with `partial` the last bucket has not ended."""
    top = max(values, default=0.0)
    step = width / max(1, len(values))
    gap = 1.0 if step > 3 else 0.3
    columns = []
    for place, value in enumerate(values):
        tall = 0.0 if top <= 0 else max(1.0, value / top * (height - 1)) if value > 0 else 0.0
        columns.append((round(place * step, 2), round(height - tall, 2), round(step - gap, 2), round(tall, 2)))
    last = columns.pop() if partial and columns else None
    return Spark(width, height, columns, last, top)


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a stacked bar."""

    name: str
    value: float
    x: float
    width: float


def stacked(parts: Sequence[tuple[str, float]], *, width: float = 1000.0, total: float | None = None) -> list[Segment]:
    """Segments over `width`; a part that is there keeps at least half a percent, so that one failure is seen."""
    whole = total if total is not None else sum(value for _, value in parts)
    if whole <= 0:
        return []
    wide = [(name, value, max(0.005 * width, value / whole * width)) for name, value in parts if value > 0]
    scale = min(1.0, width / sum(each for _, _, each in wide)) if wide else 1.0
    segments, x = [], 0.0
    for name, value, each in wide:
        segments.append(Segment(name, value, round(x, 2), round(each * scale, 2)))
        x += each * scale
    return segments
