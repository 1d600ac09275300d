"""What a verdict says, in words a person reads at a glance: who beat whom, by how much, and on what ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GROUNDS = {
    "agreed": "shown in both orders, the judge chose it both times",
    "one_order": "the judge chose it; only one order was shown or could be read",
    "margin": "the two orders disagree; the mean probability decides",
    "seed": "a tie that nothing settles; decided by the seed",
    "fallback": "the reply could not be read; as published, the second candidate wins",
    "check": "the other one failed the pre-check",
}
"""By `Ruling.how`."""
SHORT = {
    "agreed": "both orders agree",
    "one_order": "one order",
    "margin": "orders disagree",
    "seed": "tie, by seed",
    "fallback": "unreadable, fallback",
    "check": "pre-check",
}


@dataclass(frozen=True, slots=True)
class ShowingView:
    """One reading of a pair: what was shown first and second, and what the judge said."""

    order: Sequence[int]
    choice: int | None
    parse: str
    words: str
    probabilities: Sequence[float]
    """In the order shown; empty for a judge that writes words."""
    prompt_hash: str

    @property
    def said(self) -> str:
        """What the judge meant."""
        if self.parse != "ok":
            return "cannot be read"
        if len(self.order) == 1:
            return "correct" if self.choice is not None else "incorrect"
        return "an exact tie" if self.choice is None else f"prefers {self.choice}"


@dataclass(frozen=True, slots=True)
class JudgeCall:
    """One judge call of a match with its showings."""

    key: str
    kind: str
    status: str
    attempt: int
    showings: list[ShowingView]
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class VerdictView:
    """One match."""

    number: int
    round: int
    pair: Sequence[int]
    winner: int | None
    how: str | None
    margin: float | None
    """Mean probability of the winner minus that of the loser, over the orders shown."""
    swap_agreed: bool | None
    calls: list[JudgeCall]

    @property
    def loser(self) -> int | None:
        return None if self.winner is None else next((each for each in self.pair if each != self.winner), None)

    @property
    def ground(self) -> str:
        """Why it was decided so, as a sentence part."""
        return "not decided yet" if self.how is None else GROUNDS.get(self.how, self.how)

    @property
    def ground_short(self) -> str:
        return "open" if self.how is None else SHORT.get(self.how, self.how)

    @property
    def order_sensitive(self) -> bool:
        """The judge said something else when the order was swapped."""
        return self.swap_agreed is False

    @property
    def unread(self) -> int:
        """Replies that could not be read."""
        return sum(showing.parse != "ok" for call in self.calls for showing in call.showings)

    @property
    def showings(self) -> list[ShowingView]:
        return [showing for call in self.calls if call.kind != "check" for showing in call.showings]

    @property
    def sure(self) -> bool:
        """Nothing about it needs a second look."""
        return self.how in ("agreed", "one_order") and not self.unread


def view(number: int, verdict: Mapping[str, Any]) -> VerdictView:
    """One match of a trace document."""
    calls = [
        JudgeCall(
            call["call"],
            call["kind"],
            call["status"],
            call["attempt"],
            [_showing(showing) for showing in call["showings"]],
            call["error"],
        )
        for call in verdict["calls"]
    ]
    winner = verdict["winner"]
    return VerdictView(
        number=number,
        round=verdict["round"],
        pair=verdict["pair"],
        winner=winner,
        how=verdict["how"],
        margin=None if winner is None else _margin(winner, calls),
        swap_agreed=verdict["swap_agreed"],
        calls=calls,
    )


def _showing(showing: Mapping[str, Any]) -> ShowingView:
    return ShowingView(
        showing["order"],
        showing["choice"],
        showing["parse"],
        showing["words"],
        showing["probabilities"],
        showing["prompt_hash"],
    )


def _margin(winner: int, calls: Sequence[JudgeCall]) -> float | None:
    gaps = []
    for call in calls:
        for showing in call.showings:
            if len(showing.order) == 2 and len(showing.probabilities) == 2 and winner in showing.order:
                place = list(showing.order).index(winner)
                gaps.append(showing.probabilities[place] - showing.probabilities[1 - place])
    return sum(gaps) / len(gaps) if gaps else None
