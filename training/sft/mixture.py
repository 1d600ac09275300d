"""Which rows an epoch holds: the policy's rows once, and judge rows up to their share."""

from __future__ import annotations

import numpy as np


def mixture(policy: int, judge: int, share: float, seed: int) -> list[int]:
    """Row numbers of one epoch in a random order that `seed` fixes.

    Rows 0 to `policy` - 1 are the policy's and appear once; the `judge` rows follow them in number and appear as
    often as `share` asks for, each equally often up to one.
    """
    rng = np.random.default_rng([seed, policy, judge])
    wanted = round(policy * share / (1 - share)) if judge else 0
    rounds = [rng.permutation(judge) for _ in range(-(-wanted // judge) if judge else 0)]
    picked = np.concatenate(rounds)[:wanted] + policy if rounds else np.empty(0, dtype=np.int64)
    numbers = np.concatenate([np.arange(policy), picked])
    order: list[int] = rng.permutation(numbers).astype(int).tolist()
    return order
