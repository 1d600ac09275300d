"""What happens to a slot that is to run while earlier ones of its schedule run or wait. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.schedules.options import Overlap


@dataclass(frozen=True, slots=True)
class Placing:
    """`wait` for the others to end, `start` now, or `skip` with a reason; `cancel` says to stop what runs."""

    action: Literal["start", "wait", "skip"]
    reason: str = ""
    note: str = ""
    cancel: bool = False


def place(overlap: Overlap, *, running: int, waiting: int, queue_cap: int) -> Placing:
    """Decide about one slot. `running` have begun and `waiting` have not, both of the same schedule."""
    if overlap == "allow" or not running + waiting:
        return Placing("start")
    if overlap == "skip":
        return Placing("skip", "overlap", "the run before it had not ended")
    if overlap == "cancel_running":
        return Placing("wait", cancel=True)
    cap = 1 if overlap == "queue_one" else queue_cap
    if waiting >= cap:
        return Placing(
            "skip", "queue_full", f"{waiting} earlier {'slot waits' if waiting == 1 else 'slots wait'} already"
        )
    return Placing("wait")


def may_start(overlap: Overlap, *, running: int, earlier_waiting: int) -> bool:
    """Whether a waiting slot may begin: the others of its schedule have ended and it is the next in line."""
    return overlap == "allow" or not running + earlier_waiting
