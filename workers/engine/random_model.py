"""Small checkpoints with random weights, for tests and benchmarks: right in form, meaningless in what they say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reasoning.stages import STAGES

_SPECIALS = ("<|begin_of_text|>", "<|eot_id|>", "<|pad|>", "<|start_header_id|>", "<|end_header_id|>", "<|image|>")
_BOS, _EOT, _PAD = _SPECIALS[:3]
_UNKNOWN = "<unk>"

_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' %}<|image|>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Sizes of a random Mllama. The defaults are those of the demo model."""

    width: int = 128
    layers: int = 10
    cross: tuple[int, ...] = (1, 4, 7)
    heads: int = 4
    kv_heads: int = 4
    tile: int = 96
    """Pixels of an image tile."""
    patch: int = 12
    tiles: int = 1
    """Tiles of an image at most."""
    context: int = 2048
    words: int = 0
    """Above 0: one token per word `w0`, `w1`, ... and per tag; else one token per byte."""


def make_mllama(folder: Path, geometry: Geometry = Geometry(), *, seed: int = 0) -> Path:
    """Write a random Mllama checkpoint with processor and chat template into `folder`; returns it."""
    from transformers import MllamaForConditionalGeneration, MllamaProcessor
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    torch.manual_seed(seed)
    tokenizer = word_tokenizer(geometry.words) if geometry.words else byte_tokenizer()
    model = MllamaForConditionalGeneration(_mllama_config(geometry, len(tokenizer)))
    spread_out(model)
    images = MllamaImageProcessorPil(
        size={"height": geometry.tile, "width": geometry.tile}, max_image_tiles=geometry.tiles
    )
    model.save_pretrained(folder)
    MllamaProcessor(images, tokenizer, chat_template=_TEMPLATE).save_pretrained(folder)
    return folder


def spread_out(model: Any) -> None:
    """Fresh weights large enough, and gates open enough, that each input leads to a text of its own."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and parameter.numel() == 1:
                parameter.fill_(0.7)
            elif parameter.ndim == 2 and "embed" not in name:
                parameter.normal_(std=1.5 * parameter.shape[1] ** -0.5)


def byte_tokenizer() -> Any:
    """One token per byte: every text comes back exactly, and an end tag is a dozen tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({symbol: place for place, symbol in enumerate(alphabet)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return _finished(raw)


def word_tokenizer(words: int) -> Any:
    """One token per word and per tag; unknown words share one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tags = [tag for stage in STAGES for tag in (stage.open_tag, stage.close_tag)]
    known = [_UNKNOWN, *tags, *"12.:", *(f"w{i}" for i in range(words))]
    raw = Tokenizer(models.WordLevel({word: place for place, word in enumerate(known)}, _UNKNOWN))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _finished(raw)


def _finished(raw: Any) -> Any:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIALS])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=_BOS,
        eos_token=_EOT,
        pad_token=_PAD,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def _mllama_config(geometry: Geometry, vocabulary: int) -> Any:
    from transformers import MllamaConfig
    from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig

    # The image token comes last: it is read and never written, so the output layer stops before it.
    image = vocabulary - 1
    sides = range(1, geometry.tiles + 1)
    text = MllamaTextConfig(
        vocab_size=image,
        hidden_size=geometry.width,
        intermediate_size=geometry.width * 11 // 4,
        num_hidden_layers=geometry.layers,
        num_attention_heads=geometry.heads,
        num_key_value_heads=geometry.kv_heads,
        cross_attention_layers=list(geometry.cross),
        max_position_embeddings=geometry.context,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        bos_token_id=vocabulary - len(_SPECIALS),
        eos_token_id=vocabulary - len(_SPECIALS) + 1,
        pad_token_id=vocabulary - len(_SPECIALS) + 2,
    )
    vision = MllamaVisionConfig(
        hidden_size=geometry.width,
        intermediate_size=geometry.width * 3,
        num_hidden_layers=4,
        num_global_layers=1,
        attention_heads=geometry.heads,
        image_size=geometry.tile,
        patch_size=geometry.patch,
        max_num_tiles=geometry.tiles,
        supported_aspect_ratios=[[a, b] for a in sides for b in sides if a * b <= geometry.tiles],
        intermediate_layers_indices=[1],
        vision_output_dim=2 * geometry.width,
    )
    return MllamaConfig(vision_config=vision, text_config=text, image_token_index=image)
