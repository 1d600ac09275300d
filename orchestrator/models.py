"""What a model brings along for a search: read from `stagebeam.json` in its folder, without loading the model."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import orjson

from reasoning.errors import BadInput
from reasoning.policy import Policy, PromptStyle

PROFILE_FILE = "stagebeam.json"
MAX_PROFILE_BYTES = 64 * 1024
DEMO = "demo"


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """Defaults of a model. A model without a profile has none of its own."""

    name: str
    prompts: PromptStyle | None = None
    """Wording that the model was trained on; None where it does not say."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """Policy fields in place of the general defaults; a submission goes before them."""


def model_profile(name: str) -> ModelProfile:
    """The profile of a model: `demo` (ships with the package), a local folder, or an empty one for all others.

    Raises:
        BadInput: `invalid_model_profile`: the folder holds a profile that cannot be used.
    """
    folder = model_folder(name)
    path = folder / PROFILE_FILE if folder else None
    if path is None or not path.is_file():
        return ModelProfile(name)
    try:
        with path.open("rb") as file:
            data = orjson.loads(file.read(MAX_PROFILE_BYTES))
    except (OSError, orjson.JSONDecodeError) as error:
        raise _invalid(path, str(error)) from error
    prompts = data.get("prompts") if isinstance(data, dict) else None
    policy = data.get("policy", {}) if isinstance(data, dict) else None
    if not isinstance(policy, dict):
        raise _invalid(path, "it must be an object with prompts and policy")
    if prompts is not None and prompts not in get_args(PromptStyle):
        raise _invalid(path, f"prompts must be one of {', '.join(get_args(PromptStyle))}")
    try:
        Policy.from_mapping(policy)
    except BadInput as error:
        raise _invalid(path, error.message) from error
    return ModelProfile(name, prompts, policy)


def served_model(model: str) -> str:
    """The model as jobs and queues name it: settings of the scripted engine are no part of the name."""
    return "scripted" if model.startswith("scripted:") else model


def model_folder(name: str) -> Path | None:
    """The folder of a model on this machine; None for a model that is none, or that only its workers have."""
    return _demo_folder() if name == DEMO else _local_folder(name)


def _demo_folder() -> Path | None:
    spec = importlib.util.find_spec("training")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        return Path(place) / DEMO
    return None


def _local_folder(name: str) -> Path | None:
    if "\0" in name or name.startswith("openai:"):
        return None
    folder = Path(name)
    return folder if folder.is_dir() else None


def _invalid(path: Path, why: str) -> BadInput:
    return BadInput(f"the model profile {path} cannot be used: {why}.", code="invalid_model_profile", field="model")
