"""The layers of a Llama-like text model over packed tokens: fewer, larger operations than module by module."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import rms_norm, silu

from workers.engine.linear import fused


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions: x (tokens, heads, dim), cos and sin (tokens, 1, dim), halves paired as in Llama."""
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out


class Norm:
    """Root mean square norm over the last axis."""

    def __init__(self, module: Any) -> None:
        self._weight, self._eps = module.weight, module.variance_epsilon

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self._weight.shape, self._weight, self._eps)


class FeedForward:
    """Norm, gated feed-forward: added to the residual by the caller."""

    def __init__(self, layer: Any) -> None:
        self._norm = Norm(layer.post_attention_layernorm)
        self._gate_up = fused([layer.mlp.gate_proj, layer.mlp.up_proj])
        self._down = fused([layer.mlp.down_proj])

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        gate, up = self._gate_up(self._norm(h)).chunk(2, dim=-1)
        return self._down(silu(gate).mul_(up))


class SelfAttention:
    """Norm and the projections around self-attention."""

    def __init__(self, layer: Any, heads: int, kv_heads: int) -> None:
        attention = layer.self_attn
        self.scale: float = attention.scaling
        self._heads, self._kv_heads = heads, kv_heads
        self._norm = Norm(layer.input_layernorm)
        self._qkv = fused([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out = fused([attention.o_proj])

    def qkv(
        self, h: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys (both at their positions) and values, each (tokens, heads, dim)."""
        heads, kv = self._heads, self._kv_heads
        parts = self._qkv(self._norm(h)).view(len(h), heads + 2 * kv, -1)
        turned = rotate(parts[:, : heads + kv], cos, sin)
        return turned[:, :heads], turned[:, heads:], parts[:, heads + kv :]


class CrossAttention:
    """Norm and the projections around cross-attention to pictures."""

    def __init__(self, layer: Any, heads: int) -> None:
        attention = layer.cross_attn
        self.scale: float = attention.scaling
        self._heads = heads
        self._norm = Norm(layer.input_layernorm)
        self._q = fused([attention.q_proj])
        self._q_norm = Norm(attention.q_norm)
        self.out = fused([attention.o_proj])
        self.attention_gate = float(layer.cross_attn_attn_gate.detach().tanh())
        self.feed_forward_gate = float(layer.cross_attn_mlp_gate.detach().tanh())

    def q(self, h: torch.Tensor) -> torch.Tensor:
        """Queries (tokens, heads, dim)."""
        return self._q_norm(self._q(self._norm(h)).view(len(h), self._heads, -1))
