"""Search strategies by name. Each is one file; `STRATEGIES` is all that names them."""

from __future__ import annotations

from collections.abc import Mapping

from reasoning.decisions import Strategy
from reasoning.errors import BadInput, nearest
from reasoning.strategies.single import Single
from reasoning.strategies.stage_beam import StageBeam

STRATEGIES: Mapping[str, Strategy] = {"single": Single(), "stage_beam": StageBeam()}


def strategy_named(name: str) -> Strategy:
    """The strategy of that name. Raises BadInput with the nearest name."""
    try:
        return STRATEGIES[name]
    except KeyError:
        known = ", ".join(STRATEGIES)
        raise BadInput(
            f'unknown strategy "{name}".{nearest(name, STRATEGIES)} Known: {known}.',
            code="unknown_strategy",
            field="policy.strategy",
        ) from None
