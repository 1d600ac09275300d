"""How a job is stopped, as a pure rule: first nothing new starts, and on a second ask what runs is given up too."""

from __future__ import annotations

from enum import Enum

from storage.transitions import JOB_ENDED

GRACE_S = 600.0
"""What runs may go on this long after the first ask; the OpenAI wire promises an end within ten minutes."""


class Step(Enum):
    """What an ask does to a job."""

    DRAIN = "drain"
    """Nothing new starts; queries that run go on to their answers."""
    KILL = "kill"
    """Queries that run end as cancelled, and their calls are given up in the engines."""
    NOTHING = "nothing"
    """It is being done, or was."""
    REFUSE = "refuse"
    """The job is past being stopped."""


def step(status: str, *, cancelling: bool, killed: bool, at_once: bool) -> Step:
    """What an ask comes to.

    `cancelling` says that the job was asked to stop before, `killed` that this was for good, `at_once` that this ask
    is. An ask that says nothing new changes nothing, so a request that is sent twice does what one does.
    """
    if status == "cancelling":
        return Step.KILL if at_once and not killed else Step.NOTHING
    if cancelling:
        return Step.NOTHING
    if status in JOB_ENDED or status == "finalizing":
        return Step.REFUSE
    return Step.KILL if at_once else Step.DRAIN


def gives_up(cancelling_at: float, killed_at: float | None, now: float) -> bool:
    """Whether the queries of a job in `cancelling` that still run end now: somebody asked, or the grace is over."""
    return killed_at is not None or now - cancelling_at >= GRACE_S
