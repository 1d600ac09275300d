"""Small random checkpoints of decoder-only families, with their own processors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken

from tests.engine.reference import opened
from workers.engine.random_model import byte_tokenizer, spread_out

NAMES = ("llava", "idefics", "smolvlm", "qwen2", "qwen2_5", "qwen3")

Family = Path | Callable[[], tuple[Any, Any]]
"""A folder, or what makes the same model and processor each time."""

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {% for part in m.content %}"
    "{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def make(name: str, folder: Path) -> Family:
    """One of `NAMES`; `folder` is empty."""
    return {"qwen2": qwen2, "qwen2_5": qwen2_5, "qwen3": qwen3}.get(name) or _FOLDERS[name](folder)


def fresh(family: Family) -> tuple[Any, Any]:
    """A model with its processor that nobody else has."""
    return opened(family) if isinstance(family, Path) else family()


def tokenizer(*specials: str) -> Any:
    found = byte_tokenizer()
    found.add_tokens([AddedToken(token, special=True, normalized=False) for token in specials], special_tokens=True)
    return found


def text_sizes(tokens: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokens),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 600,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    } | more


def save(folder: Path, model: Any, processor: Any) -> Path:
    spread_out(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def llava(folder: Path) -> Path:
    torch.manual_seed(1)
    tokens = tokenizer("<image>")
    vision = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8
    )
    model = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            vision_config=vision,
            text_config=transformers.LlamaConfig(**text_sizes(tokens)),
            image_token_index=len(tokens) - 1,
            vision_feature_layer=-2,
        )
    )
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = transformers.LlavaProcessor(
        images,
        tokens,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    return save(folder, model, processor)


class ImagesOnly(transformers.Qwen2_5_VLProcessor):
    """Qwen's processor where torchvision, which its video half needs, is not installed."""

    def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str) -> None:
        self.image_processor, self.tokenizer, self.chat_template = image_processor, tokenizer, chat_template
        self.video_processor = None
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)


def qwen2_5() -> tuple[Any, Any]:
    """Model and processor; not from a folder, as such a processor cannot be loaded from one."""
    vision = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64, "window_size": 32}
    return _qwen(
        transformers.Qwen2_5_VLForConditionalGeneration,
        transformers.Qwen2_5_VLConfig,
        vision | {"fullatt_block_indexes": [1]},
    )


def qwen2() -> tuple[Any, Any]:
    """The generation before: another vision tower, the same text."""
    vision = {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    return _qwen(transformers.Qwen2VLForConditionalGeneration, transformers.Qwen2VLConfig, vision)


def qwen3() -> tuple[Any, Any]:
    """Norms of queries and keys, position axes that take turns, and pictures that enter the first two layers too."""
    vision = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64, "num_position_embeddings": 36}
    return _qwen(
        transformers.Qwen3VLForConditionalGeneration,
        transformers.Qwen3VLConfig,
        vision | {"depth": 3, "deepstack_visual_indexes": [0, 1]},
        mrope_section=[4, 2, 2],
        head_dim=16,
    )


def _qwen(
    model_class: Any, config_class: Any, vision: dict[str, Any], mrope_section: Sequence[int] = (2, 3, 3), **text: Any
) -> tuple[Any, Any]:
    torch.manual_seed(2)
    names = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|video_pad|>", "<|image_pad|>")
    tokens = tokenizer(*names)
    ids = {name: tokens.convert_tokens_to_ids(name) for name in names}
    config = config_class(
        text_config=text_sizes(
            tokens,
            rope_parameters={"rope_type": "default", "mrope_section": list(mrope_section), "rope_theta": 10_000.0},
            **text,
        ),
        vision_config={"depth": 2, "num_heads": 2, "patch_size": 8} | vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    images = transformers.Qwen2VLImageProcessorPil(
        patch_size=8, min_pixels=32 * 32, max_pixels=96 * 96, size={"shortest_edge": 32 * 32, "longest_edge": 96 * 96}
    )
    template = TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    model = model_class(config).eval()
    spread_out(model)
    return model, ImagesOnly(images, tokens, template)


def idefics(folder: Path) -> Path:
    return _idefics(folder, transformers.Idefics3ForConditionalGeneration, transformers.Idefics3Config)


def smolvlm(folder: Path) -> Path:
    """With the processor of Idefics3: SmolVLM's own needs packages that read videos."""
    return _idefics(folder, transformers.SmolVLMForConditionalGeneration, transformers.SmolVLMConfig)


def _idefics(folder: Path, model_class: Any, config_class: Any) -> Path:
    torch.manual_seed(3)
    names = ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    names += [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    tokens = tokenizer(*names, "<image>")
    config = config_class(
        text_config=transformers.LlamaConfig(**text_sizes(tokens)),
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        image_token_id=len(tokens) - 1,
        scale_factor=2,
    )
    images = transformers.Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = transformers.Idefics3Processor(
        images, tokens, image_seq_len=4, chat_template=TEMPLATE.replace("IMAGE", "<image>")
    )
    return save(folder, model_class(config), processor)


_FOLDERS = {"llava": llava, "idefics": idefics, "smolvlm": smolvlm}
