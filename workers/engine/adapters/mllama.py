"""Mllama (Llama-3.2-Vision, LLaVA-CoT): pictures are reached by cross-attention layers between text layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image

from reasoning.errors import ModelError
from workers.engine.adapters.base import (
    Features,
    ImageInput,
    Layout,
    Packed,
    PictureSeen,
)
from workers.engine.adapters.blocks import CrossAttention, FeedForward, Norm, SelfAttention
from workers.engine.attention import Segment, Span
from workers.engine.linear import fused
from workers.engine.pools import PoolShape


class MllamaAdapter:
    """Runs `MllamaForConditionalGeneration` with packed steps.

    Two habits of the published weights' code are kept, since the weights were trained with them: padding tiles
    pass through the vision tower, and tokens before the first image attend to all tiles, padding included.
    Padding tiles are never read in a decode step.
    """

    axes = 1

    def __init__(self, model: Any, processor: Any) -> None:
        """`model` in evaluation mode on its device; its text layers are rearranged in place."""
        config = model.config.text_config
        text = model.model.language_model
        cross = set(config.cross_attention_layers)
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._model = model.model
        self._processor = processor
        self._embed, self._rotary, self._norm = text.embed_tokens, text.rotary_emb, Norm(text.norm)
        self._head = fused([model.lm_head])
        self._cross = [layer.cross_attn for i, layer in enumerate(text.layers) if i in cross]
        self._layers: list[tuple[SelfAttention | CrossAttention, FeedForward]] = [
            (CrossAttention(layer, heads) if i in cross else SelfAttention(layer, heads, kv_heads), FeedForward(layer))
            for i, layer in enumerate(text.layers)
        ]
        self._device = model.lm_head.weight.device
        self.text = PoolShape(
            layers=config.num_hidden_layers - len(cross),
            heads=kv_heads,
            dim=config.hidden_size // heads,
            dtype=model.dtype,
            device=self._device,
        )
        self.pictures: PoolShape | None = replace(self.text, layers=len(cross))
        self.heads: int = heads
        self.vocabulary: int = config.vocab_size
        self.context: int = config.max_position_embeddings
        self._placeholder: int = model.config.image_token_index

    def image_input(self, image: Image.Image) -> ImageInput:
        data = self._processor.image_processor([[image]], return_tensors="pt")
        names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
        return ImageInput({name: data[name] for name in names})

    def lay_out(self, ids: Sequence[int], images: Sequence[str], inputs: Sequence[ImageInput]) -> Layout:
        """One placeholder per image, all in a row. Every key depends on the images: see the class docstring."""
        del inputs
        array = np.asarray(ids, dtype=np.int64)
        places = np.flatnonzero(array == self._placeholder)
        if len(places) != len(images) or (len(places) > 1 and places[-1] - places[0] != len(places) - 1):
            raise ModelError(
                f"the prompt has {len(places)} image places for {len(images)} images that must stand together; "
                "send all images in one user message",
                code="bad_prompt",
            )
        keys = array.copy()
        keys[0] ^= hash(tuple(images)) if images else 0
        return Layout(
            ids=array,
            keys=keys,
            positions=np.arange(len(array)),
            next_position=len(array),
            images=tuple(images),
            places=tuple((int(place), int(place) + 1) for place in places),
        )

    def see(self, inputs: Sequence[ImageInput]) -> list[Features]:
        names = inputs[0].tensors
        batch = {name: torch.cat([item.tensors[name] for item in inputs]).to(self._device) for name in names}
        states = self._model.vision_model(**batch).last_hidden_state
        projected = self._model.multi_modal_projector(states)[:, 0]
        tiles = batch["aspect_ratio_mask"][:, 0].sum(-1).tolist()
        return [
            # Its own memory: a view would keep all that were seen with it.
            Features(item.flatten(0, 1).clone(), valid=int(count) * item.shape[1])
            for item, count in zip(projected, tiles, strict=True)
        ]

    def picture(self, features: Sequence[Features], keys: torch.Tensor, values: torch.Tensor) -> PictureSeen:
        """Valid tiles of all images first, so that a decode step reads one run of positions."""
        states = torch.cat([f.values[: f.valid] for f in features] + [f.values[f.valid :] for f in features])
        for place, attention in enumerate(self._cross):
            heads = (-1, attention.num_key_value_heads, attention.head_dim)
            keys[place, :, : len(states)] = attention.k_norm(attention.k_proj(states).view(heads).transpose(0, 1))
            values[place, :, : len(states)] = attention.v_proj(states).view(heads).transpose(0, 1)
        return PictureSeen(tuple(np.cumsum([f.valid for f in features]).tolist()), len(states))

    def spans(self, layout: Layout, segment: Segment, seen: PictureSeen) -> tuple[Span, ...]:
        """Before the images all positions, from the i-th image on the first i images."""
        cuts = [0, *(place for place, _ in layout.places), len(layout)]
        visible = (seen.all, *seen.valid)
        spans = []
        for (start, end), count in zip(pairwise(cuts), visible, strict=True):
            begin = max(start, segment.offset)
            if begin < end:
                shift = segment.start - segment.offset
                spans.append(Span(begin + shift, end + shift, count))
        return tuple(spans)

    def forward(self, packed: Packed) -> torch.Tensor:
        step, sees = packed.step, packed.sees
        h: torch.Tensor = self._embed(packed.ids)
        cos, sin = (part[0, :, None] for part in self._rotary(h, packed.positions[None]))
        selves = crosses = 0
        for attention, feed_forward in self._layers:
            if isinstance(attention, SelfAttention):
                q, k, v = attention.qkv(h, cos, sin)
                h += attention.out(step.text(q, k, v, selves, attention.scale).flatten(1))
                h += feed_forward(h)
                selves += 1
            else:
                seen = step.picture(attention.q(h), crosses, attention.scale)
                h.add_(attention.out(seen.flatten(1)), alpha=attention.attention_gate)
                change = feed_forward(h)
                h.add_(change if sees is None else change * sees[:, None], alpha=attention.feed_forward_gate)
                crosses += 1
        return self._norm(h)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._head(hidden)
