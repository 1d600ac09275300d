"""`stage_beam`: N candidates for each of the four stages, the judge's choice goes on (LLaVA-CoT, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from reasoning.decisions import Decision, ImpliedCalls
from reasoning.policy import Policy
from reasoning.records import Call, Query
from reasoning.stages import STAGES
from reasoning.strategies.search import Step, search, steps_taken

_STEPS = tuple(stage.value for stage in STAGES)

_CALLS_PER_REASONING_PAIR = 3
"""Published mode: two pre-checks and the comparison."""


class StageBeam:
    """Stage-level beam search with one survivor per stage."""

    def plan(
        self, policy: Policy, query: Query, calls: Sequence[Call], *, limit: str | None, idle: bool = False
    ) -> Decision:
        return search(policy, query, calls, _STEPS, width=policy.candidates, limit=limit, idle=idle)

    def steps(self, policy: Policy, query: Query, calls: Sequence[Call]) -> Sequence[Step]:
        return steps_taken(policy, query, calls, _STEPS, policy.candidates)

    def implied_calls(self, policy: Policy) -> ImpliedCalls:
        pairs = policy.candidates - 1
        every = len(STAGES) * pairs
        if policy.mode == "published":
            most = every - pairs + _CALLS_PER_REASONING_PAIR * pairs
            return ImpliedCalls(len(STAGES) * policy.candidates, every, most)
        # Equal candidates are merged before judging, so that a stage may need no verdict at all.
        return ImpliedCalls(len(STAGES) * policy.candidates, 0, every)
