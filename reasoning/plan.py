"""plan(): from persisted rows to the next calls or the answer. The one idea that carries the rest.

Whoever calls it may die at any point: the next caller sees the same rows and decides the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from reasoning.policy import Policy
from reasoning.records import Call, CallError, CallSpec, Query, Ref


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


class Strategy(Protocol):
    """One file under `reasoning/strategies/`: pure, total over any set of rows, insensitive to their order."""

    def plan(self, policy: Policy, query: Query, calls: Sequence[Call], *, limit: str | None) -> Decision:
        """The next calls or the answer.

        `limit` is why the search must end now (`deadline`, `token_budget`, ...) or None; with it, the
        decision is never `Next`.
        """
        ...

    def implied_calls(self, policy: Policy) -> ImpliedCalls:
        """How many calls one query costs at least and at most, without retries."""
        ...


@dataclass(frozen=True, slots=True)
class ImpliedCalls:
    """Cost plan of one query under a policy, retries apart."""

    candidates: int
    verdicts_min: int
    verdicts_max: int
