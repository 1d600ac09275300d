"""Sampling by counter-based noise: what a row draws depends on its seed and position, never on its batch.

A sample is the arg max of scaled logits plus Gumbel noise (the Gumbel-max trick). The noise of a token is a
hash of (seed, position, token id), so it is the same on every device and whichever tokens the filters leave.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workers.engine.protocol import Sampling

COLDEST = 1e-30
"""A lower temperature would make logits infinite, and so alike."""

_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
_STEP = 0x9E3779B97F4A7C15 - 2**64
"""Constants of the SplitMix64 finaliser (Steele, Lea and Flood, OOPSLA 2014), as signed 64-bit integers."""


def _mix(x: torch.Tensor) -> torch.Tensor:
    """The SplitMix64 finaliser; torch has no unsigned shift, so the sign bits are masked off."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def gumbel(seeds: torch.Tensor, positions: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise (rows, k) in float64 for int64 `seeds` (rows), `positions` (rows), `tokens` (rows, k)."""
    stream = _mix(_mix(seeds + _STEP) ^ (positions * _STEP))
    bits = _mix(stream[:, None] ^ (tokens + 1) * _STEP)
    uniform = (((bits >> 11) & ((1 << 53) - 1)).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform))


class Draw:
    """The sampling settings of the rows of one step, as tensors. Rebuilt only when rows enter, part or leave."""

    def __init__(
        self, samplings: Sequence[Sampling], seeds: Sequence[Sequence[int]], vocabulary: int, device: torch.device
    ) -> None:
        """`samplings` of every row, and the seeds of all who draw from its logits."""
        floats = torch.tensor(
            [[max(s.temperature, COLDEST) if s.temperature > 0 else 1.0, s.top_p] for s in samplings],
            dtype=torch.float32,
        ).reshape(-1, 2)
        greedy = [s.temperature == 0 for s in samplings]
        kept = [1 if s.temperature == 0 else min(s.top_k or vocabulary, vocabulary) for s in samplings]
        self._width = max(kept, default=1)
        self._temperatures, self._top_ps = floats.to(device).unbind(1)
        self._top_ks = torch.tensor(kept, device=device)
        self._seeds = torch.tensor([_signed(seed) for row in seeds for seed in row], dtype=torch.int64, device=device)
        self._rows = torch.tensor([at for at, row in enumerate(seeds) for _ in row], dtype=torch.int64, device=device)
        self._greedy = torch.tensor(greedy, device=device)[self._rows, None] if any(greedy) else None
        self._nucleus = any(s.top_p < 1 and s.temperature > 0 for s in samplings)

    def __call__(self, logits: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Token ids (seeds) drawn from `logits` (rows, vocabulary) at `positions` (rows) of the candidates.

        Filters apply in the order of transformers: temperature, top-k, top-p. A greedy row keeps only the
        best token, so noise cannot change it.
        """
        if self._width == 1:
            return logits.argmax(-1)[self._rows]
        values, tokens = torch.topk(logits.float() / self._temperatures[:, None], self._width, dim=-1)
        rank = torch.arange(self._width, device=logits.device)
        dropped = rank >= self._top_ks[:, None]
        if self._nucleus:
            probabilities = torch.softmax(values.masked_fill(dropped, float("-inf")), dim=-1)
            before = probabilities.cumsum(-1) - probabilities
            dropped |= before >= self._top_ps[:, None]
            dropped[:, 0] = False
        values = values.double().masked_fill_(dropped, float("-inf"))
        if len(self._rows) > len(values):
            values, tokens, positions = (each[self._rows] for each in (values, tokens, positions))
        scores = values + gumbel(self._seeds, positions, tokens)
        drawn = tokens.gather(1, scores.argmax(-1, keepdim=True))
        if self._greedy is not None:
            # Of several that are best, and in half precision they often are, the first: as alone, and as `generate`.
            drawn = torch.where(self._greedy, logits.argmax(-1)[self._rows, None], drawn)
        return drawn.squeeze(1)


def _signed(seed: int) -> int:
    """The low 64 bits of `seed` as torch's signed integer."""
    low = seed & (2**64 - 1)
    return low - 2**64 if low >= 2**63 else low
