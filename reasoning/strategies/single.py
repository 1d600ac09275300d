"""`single`: one pass through all four stages in one call, without a search."""

from __future__ import annotations

from collections.abc import Sequence

from reasoning.decisions import Decision, ImpliedCalls
from reasoning.policy import Policy
from reasoning.records import WHOLE, Call, Query
from reasoning.strategies.search import Step, search, steps_taken


class Single:
    """One candidate for the whole answer; `policy.candidates` and the judge play no part."""

    def plan(
        self, policy: Policy, query: Query, calls: Sequence[Call], *, limit: str | None, idle: bool = False
    ) -> Decision:
        return search(policy, query, calls, (WHOLE,), width=1, limit=limit, idle=idle)

    def steps(self, policy: Policy, query: Query, calls: Sequence[Call]) -> Sequence[Step]:
        return steps_taken(policy, query, calls, (WHOLE,), 1)

    def implied_calls(self, policy: Policy) -> ImpliedCalls:
        return ImpliedCalls(candidates=1, verdicts_min=0, verdicts_max=0)
