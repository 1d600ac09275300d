"""What a step is to attention. Shared keys and values are read once for all candidates.

A step packs one token of every running row and whole prompts into one sequence; all layers but attention
work token by token. Attention tells them apart. The keys and values of a candidate lie in two places: the
*trunk*, which all candidates of a path share, and the *twig*, its own continuation. The candidates of a
trunk fold into its query length: no mask is causal there, since each of them has seen the whole trunk. The two
partial results join by their log-sum-exp (as in Hydragen, arXiv 2402.05099, and flash attention's split over
keys). Cross-attention to pictures is the same with a trunk alone.

There are two ways to compute it: `padded` on slots side by side, for any device, and `ragged` on runs of any
length, for the flash kernel of a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `start` to `end` of a segment that see the first `visible` positions of the segment's picture."""

    start: int
    end: int
    visible: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Prompt tokens `start` to `end` of the packed sequence; they fill a trunk from position `offset` on."""

    start: int
    end: int
    trunk: int
    offset: int
    picture: int = -1
    spans: tuple[Span, ...] = ()

    @property
    def upto(self) -> int:
        """Positions of the trunk that are filled after the step."""
        return self.offset + self.end - self.start


@dataclass(frozen=True, slots=True)
class Store:
    """Keys and values of one kind of slots, each (layers, slots, heads, length, dim)."""

    keys: torch.Tensor
    values: torch.Tensor


class Step(Protocol):
    """One packed step: `rows` decode tokens first, then the segments."""

    @property
    def rows(self) -> int: ...

    def text(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int, scale: float) -> torch.Tensor:
        """Causal self-attention; new keys and values are stored on the way.

        q is (tokens, heads, dim), k and v are (tokens, kv heads, dim); the result is (tokens, heads, dim).
        """
        ...

    def picture(self, q: torch.Tensor, layer: int, scale: float) -> torch.Tensor:
        """Cross-attention to the pictures: q and result are (tokens, heads, dim). Tokens without one get zeros."""
        ...


def joined(one: torch.Tensor, one_lse: torch.Tensor, two: torch.Tensor, two_lse: torch.Tensor) -> torch.Tensor:
    """Attention over two sets of keys from the results over each, (..., dim), and their log-sum-exps (...)."""
    weight = torch.sigmoid(two_lse - one_lse).to(one.dtype)[..., None]
    return torch.lerp(one, two, weight)
