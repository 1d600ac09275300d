"""What every adapter answers: its shapes, its pictures, its layout of a prompt, one packed forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from workers.engine.attention import Segment, Span, Step
from workers.engine.pools import PoolShape


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ImageInput:
    """One preprocessed image, ready for the vision tower: the processor's tensors, batch axis first."""

    tensors: Mapping[str, torch.Tensor]
    tokens: tuple[int, ...] = ()
    """What stands for the image in a decoder-only prompt; empty where the placeholder stays one token."""
    grid: tuple[int, ...] = ()
    """Patches in time, height and width, for models that place tokens by them."""

    @property
    def stub(self) -> ImageInput:
        """All but the tensors: what a prompt needs once the vision tower has seen the image."""
        return ImageInput({}, self.tokens, self.grid)


@dataclass(frozen=True, slots=True)
class Features:
    """What the vision tower made of one image: `values` (positions, width), the first `valid` of them real.

    The width is the text model's, or several times that where layers after the first take pictures in too.
    """

    values: torch.Tensor
    valid: int

    @property
    def nbytes(self) -> int:
        return self.values.numel() * self.values.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A prompt as the model sees it.

    `keys` identify what each position holds, images included: two prompts share keys and values as far as
    their keys agree. `positions` are (positions,) or (axes, positions) for models with several position axes.
    """

    ids: NDArray[np.int64]
    keys: NDArray[np.int64]
    positions: NDArray[np.int64]
    next_position: int
    """Position of the first token after the prompt."""
    images: tuple[str, ...]
    """Content hashes in order."""
    places: tuple[tuple[int, int], ...] = ()
    """Start and end of each image's positions in the prompt."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def image_tokens(self) -> int:
        """Positions that images take up in the prompt: one each where their features stand apart from the text."""
        return sum(end - start for start, end in self.places)


@dataclass(frozen=True, slots=True)
class PictureSeen:
    """How far a prompt sees a picture slot: `valid` positions after the images, `all` of them before."""

    valid: tuple[int, ...]
    """Positions seen from the i-th image on."""
    all: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """The part of a prompt that a segment computes: positions `offset` to the end of `layout`."""

    layout: Layout
    segment: Segment
    features: Sequence[Features] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One forward pass: the rows' last tokens, then the fills."""

    ids: torch.Tensor
    positions: torch.Tensor
    """(tokens,) or (axes, tokens)."""
    fills: Sequence[Fill]
    sees: torch.Tensor | None
    """(tokens,) 1.0 where a token sees a picture, 0.0 where not; None when all do."""
    step: Step


class Adapter(Protocol):
    """A loaded model behind the engine. Nothing but `image_input` and `lay_out` is called off the loop thread."""

    text: PoolShape
    pictures: PoolShape | None
    """Shape of a picture's cross-attention keys and values; None for decoder-only models."""
    heads: int
    """Query heads of a layer."""
    vocabulary: int
    context: int
    axes: int
    """Position axes: 1, or 3 for models with time, height and width."""

    def image_input(self, image: Image.Image) -> ImageInput:
        """Preprocess one image on the CPU."""
        ...

    def lay_out(self, ids: Sequence[int], images: Sequence[str], inputs: Sequence[ImageInput]) -> Layout:
        """The prompt with every image in its place. Raises ModelError when images and placeholders differ."""
        ...

    def see(self, inputs: Sequence[ImageInput]) -> list[Features]:
        """Run the vision tower once over all inputs."""
        ...

    def picture(self, features: Sequence[Features], keys: torch.Tensor, values: torch.Tensor) -> PictureSeen:
        """Write cross-attention keys and values of the images, each (layers, heads, positions, dim)."""
        ...

    def spans(self, layout: Layout, segment: Segment, seen: PictureSeen) -> tuple[Span, ...]:
        """Which tokens of a segment see how much of its picture."""
        ...

    def forward(self, packed: Packed) -> torch.Tensor:
        """Final hidden states (tokens, width)."""
        ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, width) to (n, vocabulary). What stands for an image is not for the model to say."""
        ...


class PassingCache:
    """Stands where transformers expects a cache: the attention function stores keys and values itself."""

    is_compileable = False

    layers: Sequence[Any] = ()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0 * layer_idx


class Attending(Protocol):
    """Whoever computes attention for the layers of a text model."""

    def attention(
        self, module: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, step: Step, scale: float
    ) -> torch.Tensor: ...


def _dispatch(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    *,
    scaling: float,
    step: Step,
    attending: Attending,
    **_unused: Any,
) -> tuple[torch.Tensor, None]:
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return attending.attention(module, q, k, v, step, scaling)[None], None


def take_over_attention(text_model: Any) -> None:
    """Route the attention of a transformers text model to the `attending` keyword of its forward call."""
    from transformers import AttentionInterface

    AttentionInterface.register("stagebeam", _dispatch)
    text_model.config._attn_implementation = "stagebeam"  # noqa: SLF001 (transformers' own switch has no public form for one submodel)
