"""The demo model: Mllama at a few million parameters, with fresh weights.

Sizes follow what trials on two CPU cores taught: at least six self-attention layers to reason with (a
cross-attention layer of Mllama has none), cross-attention early, because it can then feed all later layers, but
not in layer 0 (the cache takes its length from that layer), and gates that start open.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from training.small.tokenizer import CHAT_TEMPLATE, IMAGE

TILE = 96
"""Pixels of the one image tile, width and height."""
CONTEXT = 512
"""Tokens of prompt and answer together."""
SETTINGS = {"prompts": "compact", "policy": {"temperature": 0.9, "top_p": 0.95, "max_tokens": 320}}
"""What a model folder says of itself in `stagebeam.json`: wording of prompts, and defaults of a job's policy."""
_GATE = 0.6
"""Start value of the gates; tanh(0.6) lets about half through."""
_POSITION_SPREAD = 0.4
"""Standard deviation of fresh position embeddings, of the order of the patch embeddings."""


def build_config(tokenizer: PreTrainedTokenizerFast, width: int = 128) -> MllamaConfig:
    """The architecture for a tokenizer; `width` is the size of all hidden states."""
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    heads = width // 32
    vision = MllamaVisionConfig(
        hidden_size=width,
        intermediate_size=width * 3,
        num_hidden_layers=4,
        num_global_layers=1,
        attention_heads=heads,
        image_size=TILE,
        patch_size=12,
        max_num_tiles=1,
        supported_aspect_ratios=[[1, 1]],
        intermediate_layers_indices=[1],
        vision_output_dim=2 * width,
    )
    text = MllamaTextConfig(
        vocab_size=image_id,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=10,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        cross_attention_layers=[1, 4, 7],
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return MllamaConfig(vision_config=vision, text_config=text, image_token_index=image_id)


def build_model(config: MllamaConfig, seed: int) -> MllamaForConditionalGeneration:
    """A model with fresh weights, all drawn from `seed`."""
    torch.manual_seed(seed)
    model = MllamaForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("attn_gate", "mlp_gate", "gate_attn", "gate_ffn")):
                parameter.fill_(_GATE)
            elif name.endswith("gated_positional_embedding.embedding"):
                parameter.normal_(std=_POSITION_SPREAD)
            elif parameter.ndim == 2 and "embed" not in name and "lm_head" not in name:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
    return model


def build_processor(tokenizer: PreTrainedTokenizerFast) -> MllamaProcessor:
    """Text and images to model inputs: one tile, any image shrunk to fit."""
    images = MllamaImageProcessorPil(size={"height": TILE, "width": TILE}, max_image_tiles=1)
    return MllamaProcessor(images, tokenizer, chat_template=CHAT_TEMPLATE)


def save(model: MllamaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a folder that `AutoModelForImageTextToText` and `AutoProcessor` load: weights in bf16."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.use_cache = True  # the trainer turns it off
    half = {name: value.detach().to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=half)
    build_processor(tokenizer).save_pretrained(folder)
    (folder / "stagebeam.json").write_text(json.dumps(SETTINGS, indent=2) + "\n", encoding="utf-8")
