"""What a policy implies before anything runs: candidates, verdicts and tokens, at least and at most."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from reasoning.judging import judge_of
from reasoning.policy import Policy
from reasoning.strategies import strategy_named


@dataclass(frozen=True, slots=True)
class Cost:
    """Calls of some queries. The minimum is a search without retries, the maximum one with all of them."""

    queries: int
    candidates_min: int
    candidates_max: int
    verdicts_min: int
    verdicts_max: int
    """Judge calls, pre-checks included."""
    showings_max: int
    """Prompts that judges read: two for each verdict under the swap check."""
    tokens_max: int
    """Generated tokens if every text ran to `policy.max_tokens`."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def cost_of(policy: Policy, queries: int = 1) -> Cost:
    """The cost of `queries` queries under one policy. Sum the costs of a job whose lines override it.

    Raises:
        BadInput: the policy names no known strategy.
    """
    implied = strategy_named(policy.strategy).implied_calls(policy)
    strict = policy.mode == "strict"
    words = judge_of(policy) == "words"
    draws = implied.candidates * (1 + policy.retries if strict else 1)
    asked = implied.verdicts_max * (1 + policy.judge_retries if strict and words else 1)
    showings = asked * (2 if strict and policy.swap_check else 1)
    tokens = (draws + (showings if words else 0)) * policy.max_tokens
    each = (implied.candidates, draws, implied.verdicts_min, asked, showings, tokens)
    return Cost(queries, *(queries * number for number in each))
