"""Decoder-only models (LLaVA, Qwen2-VL to Qwen3-VL, SmolVLM, Idefics3): pictures are tokens of the prompt.

One adapter for all: transformers' own text layers run over the packed step, with attention taken over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from reasoning.errors import ModelError
from workers.engine.adapters.base import (
    Features,
    ImageInput,
    Layout,
    Packed,
    PassingCache,
    PictureSeen,
    take_over_attention,
)
from workers.engine.attention import Segment, Span, Step
from workers.engine.pools import PoolShape

FAMILIES = {"llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "idefics3"}
"""Model types tried here against `generate`."""

_THREE_AXES = {"qwen2_vl", "qwen2_5_vl", "qwen3_vl"}
"""Model types whose positions have time, height and width."""


FULL = "full_attention"


def fits(model: Any) -> bool:
    """Whether this adapter runs `model`: a known family whose layers all see the whole text."""
    text = model.config.get_text_config()
    # Mistral's layers all have the window, or none has, and no types.
    kinds = set(getattr(text, "layer_types", None) or ["windows" if getattr(text, "sliding_window", None) else FULL])
    return model.config.model_type in FAMILIES and kinds == {FULL}


class DecoderAdapter:
    """Runs a decoder-only vision-language model with packed steps."""

    pictures: PoolShape | None = None

    def __init__(self, model: Any, processor: Any) -> None:
        """`model` in evaluation mode on its device; its text model's attention implementation is replaced."""
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        self._model = model.model
        self._text = getattr(model.model, "language_model", None) or model.model.text_model
        take_over_attention(self._text)
        self._head = model.lm_head
        self._processor = processor
        self._cache = PassingCache()
        self._device = model.lm_head.weight.device
        self._placeholder: int = model.config.image_token_id
        self.axes = 3 if model.config.model_type in _THREE_AXES else 1
        self.text = PoolShape(
            layers=config.num_hidden_layers,
            heads=config.num_key_value_heads,
            dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            dtype=model.dtype,
            device=self._device,
        )
        self.heads: int = heads
        self.vocabulary: int = model.lm_head.out_features
        self.context: int = config.max_position_embeddings

    def image_input(self, image: Image.Image) -> ImageInput:
        """The processor's tensors, and the tokens that it puts in the place of one image."""
        token = self._processor.image_token
        data = self._processor(text=[token], images=[[image]], return_tensors="pt", add_special_tokens=False)
        names = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
        tensors = {name: value for name, value in data.items() if name not in names}
        grid = tensors.get("image_grid_thw")
        return ImageInput(
            tensors, tuple(data["input_ids"][0].tolist()), tuple(grid[0].tolist()) if grid is not None else ()
        )

    def lay_out(self, ids: Sequence[int], images: Sequence[str], inputs: Sequence[ImageInput]) -> Layout:
        """Each placeholder makes way for the tokens of its image, whose keys name the image."""
        if sum(i == self._placeholder for i in ids) != len(images):
            raise ModelError("the prompt's image places do not match its images", code="bad_prompt")
        found: list[int] = []
        keys: list[NDArray[np.int64]] = []
        places = []
        coming = iter(zip(images, inputs, strict=True))
        for i in ids:
            if i != self._placeholder:
                found.append(i)
                keys.append(np.array([i]))
                continue
            image, item = next(coming)
            places.append((len(found), len(found) + len(item.tokens)))
            found += item.tokens
            keys.append(_image_keys(image, len(item.tokens)))
        array = np.array(found, dtype=np.int64)
        positions = self._positions(array, inputs)
        return Layout(
            ids=array,
            keys=np.concatenate(keys),
            positions=positions,
            next_position=int(positions.max()) + 1,
            images=tuple(images),
            places=tuple(places),
        )

    def see(self, inputs: Sequence[ImageInput]) -> list[Features]:
        """One by one: the shapes of these models' inputs differ from image to image.

        Qwen3-VL hands out what several layers of its tower saw (DeepStack, arXiv 2406.04334): they stand side by
        side in the width, the last layer's first.
        """
        found = []
        for item in inputs:
            tensors = {name: value.to(self._device) for name, value in item.tensors.items()}
            seen = self._model.get_image_features(**tensors)
            levels = [seen.pooler_output, *(getattr(seen, "deepstack_features", None) or ())]
            values = torch.cat([_flat(level) for level in levels], dim=-1)
            found.append(Features(values, len(values)))
        return found

    def picture(self, features: Sequence[Features], keys: torch.Tensor, values: torch.Tensor) -> PictureSeen:
        """Never asked: pictures have no keys and values of their own here."""
        raise NotImplementedError

    def spans(self, layout: Layout, segment: Segment, seen: PictureSeen) -> tuple[Span, ...]:
        """None: there is no cross-attention."""
        del layout, segment, seen
        return ()

    def forward(self, packed: Packed) -> torch.Tensor:
        embeddings = self._text.get_input_embeddings()(packed.ids)
        deeper = self._put_pictures(packed, embeddings)
        positions = packed.positions
        out = self._text(
            inputs_embeds=embeddings[None],
            position_ids=positions[None] if self.axes == 1 else positions[:, None],
            past_key_values=self._cache,
            use_cache=True,
            step=packed.step,
            attending=self,
            **deeper,
        )
        hidden: torch.Tensor = out.last_hidden_state[0]
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Without the placeholder: a text that holds one could not be continued, as no image belongs to it."""
        scores: torch.Tensor = self._head(hidden)
        scores[:, self._placeholder] = float("-inf")
        return scores

    def attention(
        self, module: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, step: Step, scale: float
    ) -> torch.Tensor:
        return step.text(q, k, v, module.layer_idx, scale)

    def _put_pictures(self, packed: Packed, embeddings: torch.Tensor) -> dict[str, Any]:
        """Write the pictures of the step's prompts over their placeholders.

        Returns what the text model adds at the same places after its first layers, by keyword; most models: nothing.
        """
        places, found = [], []
        for fill in packed.fills:
            if not fill.features:
                continue
            segment = fill.segment
            here = np.flatnonzero(fill.layout.ids == self._placeholder)
            late = here >= segment.offset
            places.append(here[late] - segment.offset + segment.start)
            values = torch.cat([features.values for features in fill.features])
            found.append(values[torch.from_numpy(late).to(self._device)])
        if not found:
            return {}
        target = torch.from_numpy(np.concatenate(places)).to(self._device)
        first, *levels = torch.split(torch.cat(found).to(embeddings.dtype), embeddings.shape[-1], dim=-1)
        embeddings[target] = first
        if not levels:
            return {}
        mask = torch.zeros(1, len(embeddings), dtype=torch.bool, device=self._device)
        mask[0, target] = True
        return {"visual_pos_masks": mask, "deepstack_visual_embeds": levels}

    def _positions(self, ids: NDArray[np.int64], inputs: Sequence[ImageInput]) -> NDArray[np.int64]:
        straight = np.arange(len(ids))
        if self.axes == 1:
            return straight
        if not inputs:
            return np.broadcast_to(straight, (self.axes, len(ids)))
        tokens = torch.from_numpy(ids)[None]
        positions, _ = self._model.get_rope_index(
            tokens,
            mm_token_type_ids=(tokens == self._placeholder).int(),
            image_grid_thw=torch.tensor([item.grid for item in inputs]),
        )
        found: NDArray[np.int64] = positions[:, 0].cpu().numpy()
        return found


def _flat(states: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """(positions, width) of one image, however the model hands its tiles out."""
    together = states if isinstance(states, torch.Tensor) else torch.cat(list(states))
    return together.reshape(-1, together.shape[-1])


def _image_keys(image: str, count: int) -> NDArray[np.int64]:
    """One key per position of an image, the same in every prompt and unlike any token id."""
    digest = hashlib.blake2b(image.encode(), digest_size=6).digest()
    return -(np.int64(int.from_bytes(digest, "big")) * 4096 + np.arange(1, count + 1))
