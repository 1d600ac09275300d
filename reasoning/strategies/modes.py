"""The two modes of the stage search: `strict`, and `published` for comparison with the literature."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from reasoning import judging, seeds
from reasoning.judging import Ruling
from reasoning.policy import Mode, Policy
from reasoning.records import CallSpec, Ref
from reasoning.rows import Draw, Rows, merged
from reasoning.tournament import Contest, bracket, knockout


class Selection(NamedTuple):
    """How far the choice among a stage's candidates came."""

    contest: Contest
    rulings: dict[tuple[int, int], Ruling]
    """By pair, in the order of the match."""
    new: list[CallSpec]


class SearchMode(Protocol):
    """What differs between the modes."""

    def retries(self, policy: Policy) -> int:
        """How often an incomplete candidate is drawn again."""
        ...

    def field(self, draws: list[Draw]) -> list[Draw]:
        """The candidates that are judged, by index."""
        ...

    def select(self, rows: Rows, stage: str, path: tuple[Ref, ...], field: list[Draw]) -> Selection:
        """Choose among `field`, which is not empty."""
        ...


class Strict:
    """Duplicates merged, a parallel bracket, swap check, explicit ties; incomplete texts only for want of better."""

    def retries(self, policy: Policy) -> int:
        return policy.retries

    def field(self, draws: list[Draw]) -> list[Draw]:
        complete = [item for item in draws if item.reading.complete]
        return merged(complete or [item for item in draws if item.reading.inner])

    def select(self, rows: Rows, stage: str, path: tuple[Ref, ...], field: list[Draw]) -> Selection:
        by_index = {item.index: item for item in field}
        rulings: dict[tuple[int, int], Ruling] = {}
        new: list[CallSpec] = []

        def rule(one: int, other: int) -> int | None:
            pair = (min(one, other), max(one, other))
            ruling = judging.rule_strict(rows, stage, path, by_index[pair[0]], by_index[pair[1]])
            if isinstance(ruling, Ruling):
                rulings[pair] = ruling
                return ruling.winner
            new.extend(ruling)
            return None

        return Selection(bracket(list(by_index), rule), rulings, new)


class Published:
    """Random knock-out one at a time, pre-check of reasonings, unclosed candidates dropped, nothing retried."""

    def retries(self, policy: Policy) -> int:
        return 0

    def field(self, draws: list[Draw]) -> list[Draw]:
        return [item for item in draws if item.reading.complete]

    def select(self, rows: Rows, stage: str, path: tuple[Ref, ...], field: list[Draw]) -> Selection:
        by_index = {item.index: item for item in field}
        rulings: dict[tuple[int, int], Ruling] = {}
        new: list[CallSpec] = []

        def rule(one: int, other: int) -> int | None:
            ruling = judging.rule_published(rows, stage, path, by_index[one], by_index[other])
            if isinstance(ruling, Ruling):
                rulings[one, other] = ruling
                return ruling.winner
            new.extend(ruling)
            return None

        def noise(count: int) -> int:
            return seeds.pairing(rows.policy.seed, rows.query.custom_id, stage, rows.round, count)

        return Selection(knockout(list(by_index), rule, noise), rulings, new)


MODES: dict[Mode, SearchMode] = {"strict": Strict(), "published": Published()}
