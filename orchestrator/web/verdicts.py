"""What a verdict says, in words a person reads at a glance: who beat whom, by how much, and on what ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NARROW = 0.1
"""A margin below this is hardly a choice."""
GROUNDS = {
    "agreed": "shown in both orders, the judge chose it both times",
    "one_order": "the judge chose it in the one order that was shown or could be read",
    "margin": "the two orders disagree; the mean probability decides",
    "seed": "a tie that nothing settles; decided by the seed",
    "fallback": "the reply could not be read; as published, the one shown second wins",
    "check": "the pre-check called the other one incorrect; the two were not compared",
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

    @property
    def checked(self) -> str:
        """Of a pre-check: the candidate that it read, which ends its key."""
        return self.key.rpartition("/")[2] if self.kind == "check" else ""


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
        if self.how is None:
            return "not decided yet"
        if self.mute and self.how == "seed":
            return f"{self.mute}; decided by the seed"
        if self.mute and self.how == "fallback":
            return f"{self.mute}; as published, the one shown second wins"
        return GROUNDS.get(self.how, self.how)

    @property
    def ground_short(self) -> str:
        if self.how is None:
            return "open"
        if self.mute and self.how in ("seed", "fallback"):
            return f"no verdict, by {self.how}"
        return SHORT.get(self.how, self.how)

    @property
    def mute(self) -> str:
        """Why there is nothing to read of the comparison; empty where a reply could be read."""
        asked = [call for call in self.calls if call.kind != "check"]
        if any(showing.parse == "ok" for call in asked for showing in call.showings):
            return ""
        return "the call of the judge failed" if any(call.error for call in asked) else "no reply could be read"

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
    def narrow(self) -> bool:
        """The judge hardly decided."""
        return self.margin is not None and abs(self.margin) < NARROW

    @property
    def sure(self) -> bool:
        """Nothing about it needs a second look."""
        return self.how in ("agreed", "one_order") and not self.unread and not self.narrow


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
