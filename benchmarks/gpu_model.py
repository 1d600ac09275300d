"""A model of the size of LLaVA-CoT with random weights made on the device, and questions about large pictures.

Geometry and cost of a step are those of Llama-3.2-11B-Vision; what is said means nothing. Words come from the demo
model's tokenizer. The rows of the output layer that stand for anything but a plain word are zero, so that with top-k
sampling every text has its full length.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaProcessor
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from benchmarks.engine_work import Work, make_work
from reasoning.policy import Policy
from training.small.tokenizer import CHAT_TEMPLATE, IMAGE, build_tokenizer


def geometry(*, tiny: bool) -> MllamaConfig:
    """That of the 11B model, or a toy for any machine; special tokens are the demo tokenizer's."""
    tokenizer = build_tokenizer()
    ids: dict[str, Any] = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    if not tiny:
        return MllamaConfig(text_config=MllamaTextConfig(**ids), image_token_index=image)
    text = MllamaTextConfig(
        vocab_size=500, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, cross_attention_layers=[1, 3], max_position_embeddings=2048, **ids,
    )  # fmt: skip
    vision = MllamaVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_global_layers=1, attention_heads=2,
        image_size=32, patch_size=8, max_num_tiles=4, intermediate_layers_indices=[0], vision_output_dim=64,
    )  # fmt: skip
    return MllamaConfig(text_config=text, vision_config=vision, image_token_index=image)


def build(*, tiny: bool) -> tuple[MllamaForConditionalGeneration, MllamaProcessor]:
    """The model, in bf16 on the GPU or in float32 on the CPU, and its processor."""
    config, tokenizer = geometry(tiny=tiny), build_tokenizer()
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if tiny else torch.bfloat16)
    try:
        with torch.device("cpu" if tiny else "cuda"):
            model = MllamaForConditionalGeneration(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    vocabulary = tokenizer.get_vocab()
    words = [place for word, place in vocabulary.items() if word.isalpha() and place not in tokenizer.all_special_ids]
    mute = torch.ones(len(model.lm_head.weight), dtype=torch.bool)
    mute[words] = False
    model.lm_head.weight[mute.to(model.lm_head.weight.device)] = 0
    side = config.vision_config.image_size
    images = MllamaImageProcessorPil(size={"height": side, "width": side}, max_image_tiles=4)
    return model, MllamaProcessor(images, tokenizer, chat_template=CHAT_TEMPLATE)


def make_large_work(count: int, policy: Policy, side: int) -> Work:
    """`count` questions about pictures of four tiles, `side` pixels each way."""
    work = make_work(count)
    return replace(work, policy=policy, pictures={key: _enlarged(data, side) for key, data in work.pictures.items()})


def _enlarged(data: bytes, side: int) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).resize((side, side)).save(buffer, "PNG")
    return buffer.getvalue()
