"""From the name of a model to a running engine."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from reasoning.errors import BadInput
from workers.engine.config import at_least, build, parse_settings
from workers.engine.protocol import Engine

DEMO = "demo"
"""Short name of the trained demo model that ships with the package."""
SMALL_BYTES = 800_000_000
"""Weights below which a step on a CPU is mostly Python."""
MOST_PROCESSES = 4
GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""There where a GPU may be used (NVIDIA, AMD, Windows): finding out for sure takes the seconds of importing torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Settings that count before torch is there; `DeviceOptions` says what they mean."""

    apart: bool = True
    slots: int = 256
    rows: int = 512
    memory_mb: int = 0

    def __post_init__(self) -> None:
        at_least(self, slots=1, rows=1, memory_mb=0)


def open_engine(model: str, options: Mapping[str, Any] | None = None) -> Engine:
    """Start the engine that `model` names; it is ready when this returns.

    `scripted` or `scripted:SETTINGS` (see `Script`); `demo`; a local folder or hub id (see `DeviceOptions`);
    `openai:BASE_URL#MODEL` (see `RemoteOptions`). `options` are settings of that engine by field name. A
    small model on a CPU runs in processes of its own, unless `apart` is false.

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
    name = str(demo_folder()) if model == DEMO else model
    if _shared(settings).apart and _small_on_cpu(name, settings):
        return _apart(name, settings)
    from workers.engine.local import DeviceOptions, TransformersEngine

    settings.pop("apart", None)
    return TransformersEngine(name, build(DeviceOptions, settings))


def _apart(name: str, settings: Mapping[str, Any]) -> Engine:
    """One process per core, each with its share of what the settings allow."""
    from workers.engine.apart import ApartEngine

    count = min(MOST_PROCESSES, os.cpu_count() or 1)
    own = {key: value for key, value in settings.items() if key != "apart"}
    slots = _shared(settings).slots
    return ApartEngine(name, {**own, **share(settings, count)}, slots=slots, processes=count, cores=1)


def share(settings: Mapping[str, Any], count: int) -> dict[str, int]:
    """Rows and memory of each of `count` processes; no budget becomes 0, which stands for the default."""
    found = _shared(settings)
    return {"rows": -(-found.rows // count), "memory_mb": max(1, (found.memory_mb or 2048) // count)}


def _shared(settings: Mapping[str, Any]) -> Shared:
    return build(Shared, {field.name: settings[field.name] for field in fields(Shared) if field.name in settings})


def _small_on_cpu(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a step is so short that loops must not share an interpreter. Imports nothing."""
    device = settings.get("device", "auto")
    if device != "cpu" and (device != "auto" or sys.platform == "darwin" or any(Path(p).exists() for p in GPU_FILES)):
        return False
    weights = [path for path in Path(name).glob("*") if path.suffix in (".safetensors", ".bin")]
    return bool(weights) and sum(path.stat().st_size for path in weights) < SMALL_BYTES


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
