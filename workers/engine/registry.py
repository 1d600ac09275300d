"""From the name of a model to a running engine."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasoning.errors import BadInput
from workers.engine.config import build, parse_settings
from workers.engine.protocol import Engine

DEMO = "demo"
"""Short name of the trained demo model that ships with the package."""


def open_engine(model: str, options: Mapping[str, Any] | None = None) -> Engine:
    """Start the engine that `model` names; it is ready when this returns.

    `scripted` or `scripted:SETTINGS` (see `Script`); `demo`; a local folder or hub id (see `DeviceOptions`);
    `openai:BASE_URL#MODEL` (see `RemoteOptions`). `options` are settings of that engine by field name.

    Raises:
        BadInput: unknown setting, or a model that is not there.
    """
    settings = dict(options or {})
    kind, colon, rest = model.partition(":")
    if kind == "scripted":
        from workers.engine.scripted import Script, ScriptedEngine

        return ScriptedEngine(build(Script, {**settings, **(parse_settings(rest) if colon else {})}))
    if kind == "openai":
        from workers.engine.remote import RemoteEngine, RemoteOptions

        base_url, _, name = rest.partition("#")
        if not base_url or not name:
            raise BadInput(f'"{model}" must be openai:BASE_URL#MODEL', code="unknown_model", field="model")
        return RemoteEngine(build(RemoteOptions, {**settings, "base_url": base_url, "model": name}))
    from workers.engine.local import DeviceOptions, TransformersEngine

    return TransformersEngine(str(demo_folder()) if model == DEMO else model, build(DeviceOptions, settings))


def demo_folder() -> Path:
    """Where the trained demo model lies. Imports nothing. Raises BadInput when this installation has none."""
    spec = importlib.util.find_spec("training")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / DEMO
        if (folder / "config.json").is_file():
            return folder
    raise BadInput(
        "this installation has no demo model under training/demo; run `make train-demo` or name another model",
        code="unknown_model",
        field="model",
    )
