"""Linear layers side by side as one product, on the faster of the two CPU libraries that torch carries."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

Project = Callable[[torch.Tensor], torch.Tensor]

FEW_ROWS = 16
"""Below this many rows a product is bound by reading the weights, and MKL starts sooner."""

_TRIALS = 5


def fused(modules: Sequence[Any]) -> Project:
    """One function that gives the outputs of all `modules` (linear layers of one input), side by side.

    Plain layers get one weight, of which the modules keep views, so that no memory is spent twice. Others
    (quantised ones) are called one by one.
    """
    if not all(type(module) is nn.Linear and module.bias is None for module in modules):
        return lambda x: torch.cat([module(x) for module in modules], dim=-1)
    weight = modules[0].weight.data
    if len(modules) > 1:
        weight = torch.cat([module.weight.data for module in modules])
        parts = torch.split(weight, [module.out_features for module in modules])
        for module, part in zip(modules, parts, strict=True):
            module.weight.data = part
    if weight.device.type == "cpu" and weight.dtype is torch.float32 and _onednn_is_faster():
        return partial(_by_onednn, weight)
    return lambda x: linear(x, weight)


def _by_onednn(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if len(x) < FEW_ROWS:
        return linear(x, weight)
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")  # noqa: SLF001
    return out


@cache
def _onednn_is_faster() -> bool:
    """Measured once: MKL leaves AVX-512 unused on CPUs of other makers, where oneDNN is twice as fast."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    x, weight = torch.ones(128, 256), torch.ones(256, 256)
    return _best_time(partial(_by_onednn, weight), x) < 0.8 * _best_time(partial(linear, weight=weight), x)


def _best_time(product: Project, x: torch.Tensor) -> float:
    times = []
    for _ in range(_TRIALS):
        started = time.perf_counter()
        product(x)
        times.append(time.perf_counter() - started)
    return min(times)
