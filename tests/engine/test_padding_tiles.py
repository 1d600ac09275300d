"""Why padding tiles pass the vision tower: in transformers' Mllama what valid tiles hold depends on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.models.mllama import modeling_mllama

from tests.engine.reference import Reference, ask

LARGE = 1e-2
"""Share of the features' own size that no rounding explains."""


def valid_tiles(reference: Reference, change: Callable[[Any], None] = lambda _inputs: None) -> torch.Tensor:
    """What the plain tower says of an image that fills one of four tiles: (positions, width)."""
    inputs = reference.inputs(ask("?", ["picture0"]))
    named = {name: inputs[name].clone() for name in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")}
    assert named["aspect_ratio_mask"].flatten().tolist() == [1, 0, 0, 0]
    change(named)
    with torch.inference_mode():
        states: torch.Tensor = reference.model.model.vision_model(**named).last_hidden_state
    return states[0, 0, 0]


def differ(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((one - two).norm() / one.norm())


def test_what_stands_in_a_padding_tile_changes_the_valid_one(reference: Reference):
    def fill(inputs: Any) -> None:
        inputs["pixel_values"][0, 0, 1:] = 1.0

    assert differ(valid_tiles(reference), valid_tiles(reference, fill)) > LARGE


def test_a_tower_without_padding_tiles_says_something_else(reference: Reference, monkeypatch: pytest.MonkeyPatch):
    """The tower's mask stops padding from seeing padding alone. Cropping would amount to the mask below."""

    def nobody_sees_padding_tiles(
        aspect_ratio_mask: torch.Tensor, num_patches: int, target_length: int, dtype: torch.dtype
    ) -> torch.Tensor:
        hidden = (1 - aspect_ratio_mask).to(dtype).repeat_interleave(target_length, dim=1)[:, None, None]
        return hidden * torch.finfo(dtype).min

    plain = valid_tiles(reference)
    assert differ(plain, valid_tiles(reference)) == 0
    monkeypatch.setattr(modeling_mllama, "_prepare_aspect_ratio_attention_mask", nobody_sees_padding_tiles)
    assert differ(plain, valid_tiles(reference)) > LARGE
