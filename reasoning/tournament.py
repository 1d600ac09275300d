"""Who meets whom: a bracket whose rounds run in parallel, and the published random knock-out.

Both are resumable: they replay the results there are, from the start, and stop where one is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

Rule = Callable[[int, int], int | None]
"""Two candidate indices to the winner, or None while that is open."""


class Match(NamedTuple):
    """One meeting. `round` counts from 0; matches of one round do not depend on each other."""

    round: int
    first: int
    second: int
    winner: int | None


class Contest(NamedTuple):
    """How far a tournament came; `champion` is None while a match is open."""

    champion: int | None
    matches: list[Match]


def bracket(entrants: Sequence[int], rule: Rule) -> Contest:
    """Single elimination, neighbours meet; N - 1 matches in ceil(log2 N) rounds.

    With an odd number the last has a bye and plays first in the next round, so that nobody has two running.
    """
    alive = list(entrants)
    matches: list[Match] = []
    level = 0
    while len(alive) > 1:
        bye = alive[len(alive) & ~1 :]
        played = [Match(level, a, b, rule(a, b)) for a, b in zip(alive[::2], alive[1::2], strict=False)]
        matches += played
        winners = [match.winner for match in played if match.winner is not None]
        if len(winners) < len(played):
            return Contest(None, matches)
        alive = bye + winners
        level += 1
    return Contest(alive[0], matches)


def knockout(entrants: Sequence[int], rule: Rule, noise: Callable[[int], int]) -> Contest:
    """The published tournament: two random candidates leave the pool, the winner goes back; one at a time.

    `noise(k)` is the k-th random number, 0 to 2^63 - 1 (reference/method.md section 2.3).
    """
    pool = list(entrants)
    matches: list[Match] = []
    while len(pool) > 1:
        level = len(matches)
        first = pool.pop(noise(2 * level) % len(pool))
        second = pool.pop(noise(2 * level + 1) % len(pool))
        winner = rule(first, second)
        matches.append(Match(level, first, second, winner))
        if winner is None:
            return Contest(None, matches)
        pool.append(winner)
    return Contest(pool[0], matches)


def standing(entrants: Sequence[int], contest: Contest) -> list[int]:
    """Those not beaten yet, most wins first, ties in the order of `entrants`."""
    wins = dict.fromkeys(entrants, 0)
    for match in contest.matches:
        if match.winner is not None:
            wins[match.winner] += 1
            wins.pop(match.second if match.winner == match.first else match.first, None)
    return sorted(wins, key=lambda index: -wins[index])
