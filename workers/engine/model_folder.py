"""A checkpoint from a local folder or the hub: weights, processor, and what the folder says of itself."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError

from reasoning.errors import BadInput
from reasoning.policy import PromptStyle

SETTINGS_FILE = "stagebeam.json"
"""Optional file of a model folder: `{"prompts": "compact", "policy": {...}}`."""

INT4_BLOCK = (64, 32)
"""Of what the inputs and outputs of a layer must be multiples (bitsandbytes 0.50, `_convert_weight_packed_for_cpu`)."""

_NEEDED = (
    ("config.json",),
    ("*.safetensors", "*.safetensors.index.json"),
    ("tokenizer.json", "tokenizer.model", "vocab.json"),
    ("preprocessor_config.json", "processor_config.json"),
)
"""Of each line a model folder holds at least one."""

_TUNED = {"Xkev/Llama-3.2V-11B-cot"}
"""Hub checkpoints whose weights hold the four-stage format."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model with its processor."""

    name: str
    revision: str
    model: Any
    processor: Any
    prompts: PromptStyle
    ends: frozenset[int]
    """Token ids that end a turn."""


def load(name: str, *, device: str, dtype: str, quantize: str = "") -> Checkpoint:
    """Load `name` (a folder or hub id) onto `device`.

    `dtype` is `auto` (as stored on a GPU, float32 on a CPU) or a torch name; `quantize` is empty, `int8` or
    `int4` (bitsandbytes; `int8` on a GPU).

    Raises:
        BadInput: `unknown_model` when a file or a tensor is missing or the checkpoint cannot be read;
            `invalid_settings` when bitsandbytes is not installed or cannot hold a layer.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    logging.disable_progress_bar()
    _check_folder(name)
    target = torch.device(device)
    try:
        processor = AutoProcessor.from_pretrained(name)
        model, found = AutoModelForImageTextToText.from_pretrained(
            name,
            dtype=_dtype(dtype, target),
            device_map=str(target) if target.type != "cpu" else None,
            output_loading_info=True,
            **_quantization(quantize),
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"model {name} cannot be loaded: {error}", code="unknown_model", field="model") from error
    if found["missing_keys"]:
        # transformers would fill them with random numbers.
        some = ", ".join(sorted(found["missing_keys"])[:3])
        raise BadInput(f"the weights of model {name} lack {some}", code="unknown_model", field="model")
    if quantize == "int4" and target.type == "cpu":
        _check_sizes(model)
    if not getattr(processor, "chat_template", None):
        raise BadInput(f"model {name} has no chat template; add chat_template.jinja", code="unknown_model")
    return Checkpoint(
        name=name,
        revision=str(getattr(model.config, "_commit_hash", None) or "local"),
        model=model.eval(),
        processor=processor,
        prompts=_prompts(name),
        ends=_ends(model, processor),
    )


def folder_settings(name: str) -> dict[str, Any]:
    """The content of `stagebeam.json` in a local model folder; empty without one. Raises BadInput."""
    path = Path(name) / SETTINGS_FILE
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is not valid JSON: {error}", code="invalid_settings") from error
    return dict(data)


def pick_device(device: str) -> str:
    """`auto` is the first GPU, else the CPU. Raises BadInput for one that this machine does not have."""
    if device != "auto":
        _check_device(device)
        return device
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an assertion where torch was built without CUDA
        why = str(error).partition("\n")[0]
        raise BadInput(
            f'the device "{device}" cannot be used: {why}. Use auto, cpu, cuda or cuda:N.',
            code="invalid_settings",
            field="device",
        ) from None


def _check_folder(name: str) -> None:
    """Name the missing file before transformers takes the folder for a hub id."""
    folder = Path(name)
    if not folder.is_dir():
        if folder.is_absolute() or name.startswith("."):
            raise BadInput(f"there is no model folder {name}", code="unknown_model", field="model")
        return
    for patterns in _NEEDED:
        if not any(any(folder.glob(pattern)) for pattern in patterns):
            raise BadInput(f"model folder {name} lacks {' or '.join(patterns)}", code="unknown_model", field="model")


def _dtype(dtype: str, device: torch.device) -> torch.dtype | str:
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise BadInput(
            f'unknown dtype "{dtype}"; use auto, float32, bfloat16 or float16', code="invalid_settings", field="dtype"
        )
    return found


def _quantization(quantize: str) -> dict[str, Any]:
    if not quantize:
        return {}
    if quantize not in ("int8", "int4"):
        raise BadInput(f'unknown quantize "{quantize}"; use int8 or int4', code="invalid_settings", field="quantize")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BadInput(
            f'quantize={quantize} needs bitsandbytes; install "stagebeam[quant]"',
            code="invalid_settings",
            field="quantize",
        )
    from transformers import BitsAndBytesConfig

    return {"quantization_config": BitsAndBytesConfig(load_in_8bit=quantize == "int8", load_in_4bit=quantize == "int4")}


def _check_sizes(model: torch.nn.Module) -> None:
    """Name the layer that bitsandbytes would fail on in the first forward pass: on a CPU it packs blocks of weights."""
    inputs, outputs = INT4_BLOCK
    for name, layer in model.named_modules():
        if not isinstance(layer, torch.nn.Linear) or not hasattr(layer.weight, "quant_state"):
            continue
        if layer.in_features % inputs or layer.out_features % outputs:
            raise BadInput(
                f"quantize=int4 cannot hold layer {name}, {layer.in_features} numbers in and {layer.out_features} out: "
                f"on a CPU these must be multiples of {inputs} and {outputs}; leave quantize out or use a GPU",
                code="invalid_settings",
                field="quantize",
            )


def _prompts(name: str) -> PromptStyle:
    style = folder_settings(name).get("prompts", "tuned" if name in _TUNED else "standard")
    for known in get_args(PromptStyle):
        if style == known:
            found: PromptStyle = known
            return found
    raise BadInput(f'{name}/{SETTINGS_FILE} asks for unknown prompts "{style}"', code="invalid_settings")


def _ends(model: Any, processor: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured, processor.tokenizer.eos_token_id]
    return frozenset(i for i in ids if i is not None)
