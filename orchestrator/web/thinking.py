"""How one question was thought through, made ready to be looked at: stages as columns of candidates, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from orchestrator.web import bracket, marks, tree, verdicts
from orchestrator.web.bracket import Bracket
from orchestrator.web.diff import Run
from orchestrator.web.verdicts import VerdictView
from reasoning import grammar
from reasoning.records import WHOLE
from reasoning.stages import STAGES, Stage

FIRST_SIGHT = 420
"""Characters of a candidate that a card shows before it is opened."""
OPENED = 4_000
"""Characters that an opened card shows; the page of the call has the rest."""
MANY_CARDS = 64
"""With more candidates on a page, cards show the beginning of their text alone."""
MANY_MATCHES = 24
"""With more matches in a stage, only the telling ones are listed; each has its own page."""
WORTH = {"kept": 0, "retraced": 1, "open": 2, "pruned": 3, "duplicate": 4, "failed": 5}
"""Order of the cards of a stage: the kept one on top, so that the kept path is a straight line."""
PLAYED = ("kept", "retraced", "pruned", "open")
"""Those that may have met others before the judge."""
ORDER = {stage.value: place for place, stage in enumerate(STAGES)}


@dataclass(frozen=True, slots=True)
class Card:
    """One candidate of one stage."""

    index: int
    attempt: int
    status: str
    """kept, retraced, pruned, duplicate, failed or open."""
    reason: str | None
    text: str
    """Inner text where there is one, else as generated; a whole answer with its tags."""
    raw: str
    format_ok: bool | None
    tokens: int | None
    finish: str | None
    seed: int | None
    call: str
    matches: list[VerdictView] = field(default_factory=list)
    runs: Sequence[Run] = ()
    """The text of first sight, marked where the card that it is held against says something else."""

    @property
    def wins(self) -> int:
        return sum(match.winner == self.index for match in self.matches)

    @property
    def long(self) -> bool:
        return len(self.text) > FIRST_SIGHT


@dataclass(frozen=True)
class StageView:
    """A round of a stage: its candidates, the matches between them, and the sentence that sums it up."""

    name: str
    round: int
    """How often the search had returned to the stage before."""
    parent: tree.Ref | None
    """The candidate that all of these continue; None in the first stage."""
    cards: list[Card]
    verdicts: list[VerdictView]
    winner: int | None
    flaw: str | None
    bracket: Bracket | None
    tokens: int
    seconds: float | None
    """From the first start to the last end of its calls; None where times are not kept."""

    @property
    def key(self) -> str:
        """Names it in addresses: the stage, and the round from the second on."""
        return f"{self.name}-r{self.round}" if self.round else self.name

    @property
    def kept(self) -> Card | None:
        return next((card for card in self.cards if card.status == "kept"), None)

    @property
    def drawn(self) -> int:
        """Candidates with text, further attempts included."""
        return sum(bool(card.raw) for card in self.cards)

    @property
    def lost(self) -> int:
        """Candidates without text: an engine error took them."""
        return sum(card.status == "failed" and not card.raw for card in self.cards)

    @property
    def doubts(self) -> int:
        """Matches that were not decided plainly."""
        return sum(not match.sure for match in self.verdicts if match.winner is not None)

    @property
    def telling(self) -> list[VerdictView]:
        """The matches to list: all, or when there are many those of the winner, then the doubtful ones."""
        if len(self.verdicts) <= MANY_MATCHES:
            return self.verdicts
        own = [match for match in self.verdicts if self.winner in match.pair]
        doubtful = [match for match in self.verdicts if self.winner not in match.pair and not match.sure]
        chosen = (own + doubtful)[:MANY_MATCHES]
        return sorted(chosen, key=lambda match: match.number)

    @cached_property
    def says(self) -> Mapping[int, marks.Says]:
        """What tells the two of each listed match apart, by the number of the match."""
        texts = {card.index: card.text for card in self.cards if card.raw and card.status != "failed"}
        return marks.between({match.number: match.pair for match in self.telling}, texts)

    @property
    def why(self) -> str:
        """One sentence on how the choice was made."""
        if self.winner is None and self.cards and all(card.status == "failed" for card in self.cards):
            return "No candidate could be used."
        if self.winner is None:
            return "No candidate is chosen yet." if self.cards else "Not begun."
        won = [match for match in self.verdicts if match.winner == self.winner]
        if won:
            return f"Candidate {self.winner} " + ", then ".join(_beat(match) for match in won) + "."
        same = sum(card.status == "duplicate" for card in self.cards)
        if same:
            return f"Candidate {self.winner} stands for all: {same} more had the same text, so nothing was judged."
        return f"Candidate {self.winner} was the only one that could be used." if self.drawn > 1 else "One candidate."


@dataclass(frozen=True, slots=True)
class Section:
    """The kept text of one stage; `anchor` names its card."""

    name: str
    text: str
    anchor: str


@dataclass(frozen=True)
class Thought:
    """The whole search."""

    stages: list[StageView]
    answer: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    usage: Mapping[str, Any]

    @property
    def sections(self) -> list[Section]:
        """What led to the answer, as a document: the kept texts, the conclusion left out."""
        found = []
        for stage in sorted(self.stages, key=lambda each: ORDER.get(each.name, 0)):
            if stage.kept is None:
                continue
            parts = _parts(stage.kept.raw) if stage.name == WHOLE else {stage.name: stage.kept.text}
            anchor = f"{stage.key}-{stage.kept.index}"
            found += [Section(name, text, anchor) for name, text in parts.items() if name != Stage.CONCLUSION and text]
        return found

    @property
    def candidates(self) -> int:
        return sum(stage.drawn for stage in self.stages)

    @property
    def crowded(self) -> bool:
        """Too many candidates to send all their texts with the page."""
        return self.candidates > MANY_CARDS

    @property
    def matches(self) -> int:
        return sum(len(stage.verdicts) for stage in self.stages)

    @property
    def closest(self) -> VerdictView | None:
        """The match decided by the least margin."""
        known = [
            (abs(match.margin), match) for each in self.stages for match in each.verdicts if match.margin is not None
        ]
        return min(known, key=lambda pair: pair[0])[1] if known else None

    @cached_property
    def columns(self) -> list[list[StageView]]:
        """Stage by stage, the newest round of each first."""
        by_name: dict[str, list[StageView]] = {}
        for stage in self.stages:
            by_name.setdefault(stage.name, []).append(stage)
        ordered = sorted(by_name.items(), key=lambda item: ORDER.get(item[0], 0))
        return [sorted(rounds, key=lambda stage: -stage.round) for _, rounds in ordered]

    @cached_property
    def tree(self) -> list[tree.Branch]:
        """The same by what continued what."""
        return tree.grow(self.stages)

    def stage(self, key: str) -> StageView | None:
        return next((stage for stage in self.stages if stage.key == key), None)


def view(trace: Mapping[str, Any], calls: Sequence[Any] = ()) -> Thought:
    """A trace document, with the call rows behind it where they are still rows."""
    return Thought(
        stages=[_stage(stage, calls) for stage in trace["stages"]],
        answer=trace["answer"],
        error=trace["error"],
        usage=trace["usage"],
    )


def _stage(stage: Mapping[str, Any], calls: Sequence[Any]) -> StageView:
    matches = [verdicts.view(number, verdict) for number, verdict in enumerate(stage["verdicts"])]
    cards = _marked([_card(candidate, matches, stage["stage"]) for candidate in stage["candidates"]])
    round_ = stage.get("round", 0)  # traces that were folded before rounds were told are of one round
    own = [call for call in calls if (call.stage, call.round) == (stage["stage"], round_)]
    starts = [call.started_at for call in own if call.started_at is not None]
    ends = [call.ended_at for call in own if call.ended_at is not None]
    return StageView(
        name=stage["stage"],
        round=round_,
        parent=(stage["path"][-1][0], stage["path"][-1][1]) if stage["path"] else None,
        cards=sorted(cards, key=lambda card: (WORTH.get(card.status, 9), card.index, card.attempt)),
        verdicts=matches,
        winner=stage["winner"],
        flaw=stage["flaw"],
        bracket=bracket.draw(stage["verdicts"], stage["winner"]),
        tokens=sum(card.tokens or 0 for card in cards),
        seconds=max(ends) - min(starts) if starts and ends else None,
    )


def _parts(text: str) -> dict[str, str]:
    """A whole answer by stage, as the grammar reads it."""
    return {stage.value: reading.inner for stage, reading in grammar.read_answer(text).items()}


def _card(candidate: Mapping[str, Any], matches: Sequence[VerdictView], stage: str) -> Card:
    raw = candidate.get("text", "")
    met = [match for match in matches if candidate["index"] in match.pair] if raw else []
    played = candidate["status"] in PLAYED
    return Card(
        index=candidate["index"],
        attempt=candidate["attempt"],
        status=candidate["status"],
        reason=candidate["reason"],
        text=raw if stage == WHOLE else candidate.get("inner") or raw,
        raw=raw,
        format_ok=candidate.get("format_ok"),
        tokens=candidate.get("tokens"),
        finish=candidate.get("finish"),
        seed=candidate.get("seed"),
        call=candidate["call"],
        matches=met if played else [],
    )


def _marked(cards: list[Card]) -> list[Card]:
    """The cards with the words marked that the choice was about.

    Each is held against the kept one, and that one against the last that it beat.
    """
    kept = next((card for card in cards if card.status in ("kept", "retraced") and card.raw), None)
    if kept is None or len(cards) > MANY_CARDS:
        return cards
    beaten = [match.loser for match in kept.matches if match.winner == kept.index]
    last = next((card for card in cards if beaten and card.index == beaten[-1] and card.raw), None)
    return [_held(card, last if card is kept else kept) for card in cards]


def _held(card: Card, against: Card | None) -> Card:
    if against is None or card.status not in PLAYED or not card.raw:
        return card
    return replace(card, runs=marks.marked(card.text[:FIRST_SIGHT], against.text[:FIRST_SIGHT]))


def _beat(match: VerdictView) -> str:
    margin = "" if match.margin is None else f", margin {match.margin:.2f}".replace("-", "\u2212")
    return f"beat {match.loser} ({match.ground_short}{margin})"
