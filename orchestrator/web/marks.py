"""Which words decided: what a candidate says that its opponent does not, marked on the cards and told with matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.web.diff import Diff, Run, only, word_diff

COMPARED = 1_200
"""Characters of a text that are compared for a match: a page may hold a hundred of them."""
TOLD = 90
"""Characters of the differing words that a match tells; the page of the match has all."""
MOSTLY = 0.5
"""Texts that differ in more than this share of their words have nothing in common worth marking."""


@dataclass(frozen=True, slots=True)
class Says:
    """What each of two opponents says alone; empty where it only leaves something out."""

    first: str
    second: str


def marked(text: str, opponent: str) -> list[Run]:
    """`text` as runs, those words marked that `opponent` lacks; one unmarked run when they have little in common."""
    found = word_diff(opponent, text)
    return found.right if _alike(found, opponent, text) else [Run("same", text)]


def says(first: str, second: str) -> Says | None:
    """What tells two texts apart, in a few words; None when they are the same, or differ all over."""
    left, right = first[:COMPARED], second[:COMPARED]
    found = word_diff(left, right)
    if not found.changed or not _alike(found, left, right):
        return None
    told = Says(only(found.left, TOLD), only(found.right, TOLD))
    return told if told.first or told.second else None


def between(pairs: Mapping[int, Sequence[int]], texts: Mapping[int, str]) -> dict[int, Says]:
    """What tells the two of each match apart, by the number of the match."""
    found = {
        number: says(texts[pair[0]], texts[pair[1]]) for number, pair in pairs.items() if all(i in texts for i in pair)
    }
    return {number: told for number, told in found.items() if told is not None}


def _alike(found: Diff, first: str, second: str) -> bool:
    words = max(len(first.split()), len(second.split()), 1)
    return found.changed is not None and (words <= 3 or found.changed <= MOSTLY * words)
