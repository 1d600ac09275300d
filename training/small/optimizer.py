"""Muon for the matrices, AdamW for the rest, behind one optimizer that the trainer can step and save.

Muon (torch.optim.Muon) reaches a given loss in markedly fewer steps than AdamW at this size, and steps are what
a laptop has least of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class Paired(torch.optim.Optimizer):
    """Two optimizers that share their parameter groups and step together."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self._parts = (first, second)
        super().__init__([*first.param_groups, *second.param_groups], {})
        self.param_groups = [*first.param_groups, *second.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step both; `closure` is not used."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"parts": [part.state_dict() for part in self._parts], "state": {}, "param_groups": []}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take both states back."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]


def build_optimizer(model: nn.Module, matrix_rate: float, other_rate: float, decay: float = 0.01) -> Paired:
    """Muon on the hidden matrices, AdamW on embeddings, output layer, norms and gates."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in _trained(model.named_parameters()):
        inner = parameter.ndim == 2 and not any(word in name for word in ("embed", "lm_head"))
        (matrices if inner else others).append(parameter)
    muon = torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    return Paired(muon, torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.0))


def _trained(named: Iterable[tuple[str, nn.Parameter]]) -> Iterable[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in named if parameter.requires_grad)
