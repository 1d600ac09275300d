"""The search as a tree: under each candidate that was gone on from, the candidates of the next stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.web.flaws import unusable

if TYPE_CHECKING:
    from orchestrator.web.thinking import Card, StageView

Ref = tuple[str, int]
"""A candidate: the key of its call and its index."""
SHOWN_ENDS = 6
"""Branches that end at a place and are listed at once; more are folded."""
LAST = {"retraced": 1, "kept": 2}
"""What was gone on from stands below what ended, so that the way down is not torn apart."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One candidate, and what continued it."""

    card: Card
    ending: str
    """How the branch ends here, in a few words; empty where it goes on, and at the answer."""
    doubtful: bool
    """It was given up in a match that was not decided plainly."""
    branches: list[Branch] = field(default_factory=list)
    also: list[Card] = field(default_factory=list)
    """Further duplicates of the same text, told in one line with this one."""

    @property
    def cards(self) -> list[Card]:
        return [self.card, *self.also]


@dataclass(frozen=True, slots=True)
class Branch:
    """A round of a stage below one candidate: those that ended there, then those that were gone on from."""

    stage: StageView
    ended: list[Leaf]
    onward: list[Leaf]
    orphan: bool
    """What it continued is not among the candidates."""

    @property
    def first_ends(self) -> list[Leaf]:
        return self.ended[:SHOWN_ENDS]

    @property
    def more_ends(self) -> list[Leaf]:
        return self.ended[SHOWN_ENDS:]


def grow(stages: Sequence[StageView]) -> list[Branch]:
    """The roots: the first stage, and stages whose parent is missing."""
    below: dict[Ref | None, list[StageView]] = {}
    known = {(card.call, card.index) for stage in stages for card in stage.cards}
    roots = []
    for stage in stages:
        below.setdefault(stage.parent, []).append(stage)
        if stage.parent is None or stage.parent not in known:
            roots.append(stage)
    return [_branch(stage, below, orphan=stage.parent is not None) for stage in roots]


def _branch(stage: StageView, below: Mapping[Ref | None, Sequence[StageView]], *, orphan: bool = False) -> Branch:
    leaves = [_leaf(card, below) for card in sorted(stage.cards, key=lambda card: (card.index, card.attempt))]
    onward = [leaf for leaf in leaves if leaf.branches or leaf.card.status in LAST]
    ended = _together([leaf for leaf in leaves if leaf not in onward])
    return Branch(stage, ended, sorted(onward, key=lambda leaf: LAST.get(leaf.card.status, 0)), orphan)


def _leaf(card: Card, below: Mapping[Ref | None, Sequence[StageView]]) -> Leaf:
    lost = next((match for match in card.matches if match.loser == card.index), None)
    branches = [_branch(stage, below) for stage in below.get((card.call, card.index), ())]
    return Leaf(card, _ending(card), lost is not None and not lost.sure, branches)


def _together(leaves: Sequence[Leaf]) -> list[Leaf]:
    """The leaves, duplicates of one text as one."""
    found: dict[object, Leaf] = {}
    for leaf in leaves:
        same = leaf.ending if leaf.card.status == "duplicate" else (leaf.card.call, leaf.card.index)
        first = found.setdefault(same, leaf)
        if first is not leaf:
            first.also.append(leaf.card)
    return [*found.values()]


def _ending(card: Card) -> str:
    if card.status == "pruned":
        lost = next((match for match in card.matches if match.loser == card.index), None)
        if lost is None:
            return card.reason or ""
        return f"lost to {lost.winner}" + ("" if lost.margin is None else f" by {lost.margin:.2f}")
    return unusable(card.reason)
