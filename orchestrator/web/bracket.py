"""Where the nodes and lines of a tournament go: candidates at the left, each match right of those who meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROW = 30
"""Pixels between two candidates."""
COLUMN = 96
"""Pixels between two rounds."""
MARGIN = 18
MAX_ENTRANTS = 16
"""With more the table of matches says it better."""


@dataclass(frozen=True, slots=True)
class Node:
    """A candidate (`match` None) or a match, at its winner's name."""

    x: float
    y: float
    label: str
    match: int | None
    won: bool
    """Of a candidate: it became the champion. Of a match: it is decided."""


@dataclass(frozen=True, slots=True)
class Line:
    """From a candidate or match to the match that follows."""

    path: str
    won: bool


@dataclass(frozen=True, slots=True)
class Bracket:
    """A drawing of `width` by `height` pixels."""

    width: float
    height: float
    nodes: list[Node]
    lines: list[Line]


def draw(verdicts: Sequence[Mapping[str, Any]], champion: int | None) -> Bracket | None:
    """The drawing of a stage's matches in the order they were played; None when there are none or too many."""
    entrants = _entrants(verdicts)
    if not verdicts or len(entrants) > MAX_ENTRANTS:
        return None
    at: dict[int, tuple[float, float]] = {index: (MARGIN, MARGIN + ROW * place) for place, index in enumerate(entrants)}
    nodes = [Node(*at[index], str(index), None, index == champion) for index in entrants]
    lines: list[Line] = []
    for number, verdict in enumerate(verdicts):
        pair: Sequence[int] = verdict["pair"]
        winner: int | None = verdict["winner"]
        x = max(at[index][0] for index in pair) + COLUMN
        y = sum(at[index][1] for index in pair) / 2
        lines += [Line(_elbow(*at[index], x, y), index == winner) for index in pair]
        nodes.append(Node(x, y, "?" if winner is None else str(winner), number, winner is not None))
        if winner is not None:
            at[winner] = (x, y)
    width = max(node.x for node in nodes) + MARGIN
    return Bracket(width, 2 * MARGIN + ROW * (len(entrants) - 1), nodes, lines)


def _entrants(verdicts: Sequence[Mapping[str, Any]]) -> list[int]:
    """Those who meet, neighbours in the first round beside each other, so that few lines cross."""
    seen: dict[int, None] = {}
    for verdict in verdicts:
        seen.update(dict.fromkeys(verdict["pair"]))
    return list(seen)


def _elbow(x: float, y: float, to_x: float, to_y: float) -> str:
    return f"M{x:g} {y:g}H{to_x - 26:g}V{to_y:g}H{to_x:g}"
