"""What `plan()` can decide, and what a strategy is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from reasoning.policy import Policy
from reasoning.records import Call, CallError, CallSpec, Query, Ref

if TYPE_CHECKING:
    from reasoning.strategies.search import Step

INCOMPLETE_STAGE = "incomplete_stage"
"""Degraded: a stage never closed, although it was drawn again as often as the policy allows."""

JUDGE_FAILED = "judge_failed"
"""Degraded: a comparison ended in an engine error and was settled without a judge."""

LOST_CANDIDATES = "lost_candidates"
"""Degraded: engine errors took candidates out of the search."""

DEADLINE = "deadline"
"""Degraded or failed: the time of the query was up. A call that ended in this error was cut off by it."""

TOKEN_BUDGET = "token_budget"  # noqa: S105 - a word, not a secret
"""Degraded or failed: the query spent its `policy.token_budget`."""

NO_CANDIDATE = "no_candidate"
"""Failed: every candidate of a stage was drawn, and none can be used."""


@dataclass(frozen=True, slots=True)
class Next:
    """Calls to insert now. Empty means: wait for calls that are still open."""

    calls: tuple[CallSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The search is over. `text` is the inner text of CONCLUSION, `path` the kept candidates in order."""

    text: str
    path: tuple[Ref, ...]
    format_ok: bool = True
    """False when a tolerated variant of the tag grammar had to be read."""
    degraded: str | None = None
    """Why this is the best so far and not a full search; None for a full one."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer can come of these rows; `stage` says where it ended."""

    error: CallError
    stage: str


Decision = Next | Answer | Failed


@dataclass(frozen=True, slots=True)
class ImpliedCalls:
    """Cost plan of one query under a policy, retries apart."""

    candidates: int
    verdicts_min: int
    verdicts_max: int


class Strategy(Protocol):
    """One file under `reasoning/strategies/`: pure, total over any set of rows, insensitive to their order."""

    def plan(
        self, policy: Policy, query: Query, calls: Sequence[Call], *, limit: str | None, idle: bool = False
    ) -> Decision:
        """The next calls or the answer.

        `limit` is why the search must end now (`deadline`, `token_budget`, ...) or None; with it, the
        decision is never `Next`. `idle` hints that workers wait for work: under `fan_out: auto` the
        candidates of a new stage then go as one call each.
        """
        ...

    def steps(self, policy: Policy, query: Query, calls: Sequence[Call]) -> Sequence[Step]:
        """Every stage as far as the rows tell, in order and never empty: what `reasoning.trace` shows."""
        ...

    def implied_calls(self, policy: Policy) -> ImpliedCalls:
        """How many calls one query costs at least and at most, without retries."""
        ...
