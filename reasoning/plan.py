"""plan(): from persisted rows to the next calls or the answer. The one idea that carries the rest.

Whoever calls it may die at any point: the next caller sees the same rows and decides the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from reasoning.decisions import Answer, Decision, Failed, ImpliedCalls, Next, Strategy
from reasoning.policy import Policy
from reasoning.records import Call, Query
from reasoning.strategies import strategy_named

__all__ = ["Answer", "Decision", "Failed", "ImpliedCalls", "Next", "Strategy", "plan"]


def plan(
    policy: Policy, query: Query, calls: Sequence[Call], *, limit: str | None = None, idle: bool = False
) -> Decision:
    """What to do next for one query, given all its call rows in any order; rows of unknown keys are ignored.

    Whoever inserts the calls holds the query's row meanwhile: `idle` may differ between two planners, and
    the shape of a stage's first calls is settled by whichever of them stands in the rows.

    Args:
        policy: the frozen policy of the query (overrides applied).
        query: the question.
        calls: every call row of the query.
        limit: why the search must end now (`deadline`, `cancelled`, ...), or None. With it the decision is
            never `Next`, and cancelled rows count as never begun.
        idle: a hint that workers wait for work; see `Policy.fan_out`.

    Raises:
        BadInput: the policy names no known strategy.
    """
    return strategy_named(policy.strategy).plan(policy, query, calls, limit=limit, idle=idle)
