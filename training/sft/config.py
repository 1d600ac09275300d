"""What a training run is told, from a TOML file; everything in it is checked before a step is spent."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from reasoning.errors import BadInput, nearest

Method = Literal["full", "lora"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One run. Defaults are the paper's settings for one GPU of eight (arXiv 2411.10440 v6, table 6).

    Paths are relative to the folder of the configuration file.
    """

    model: str
    """Model that is trained, with its processor: a folder (absolute, or from `./` or `../`), a hub id, or `demo`."""
    out: Path
    """Folder for checkpoints, metrics and the trained model."""
    rows: tuple[Path, ...]
    """JSON-lines files in the LLaVA-CoT format."""
    images: Path
    """Folder that the rows' image paths are relative to."""
    judge_rows: tuple[Path, ...] = ()
    """Rows of the judge mixture, in the same format."""
    judge_share: float = 0.0
    """Share of judge rows among all rows of an epoch, from 0 to 0.9; they are repeated or thinned to fit."""
    method: Method = "full"
    """`full` trains all weights, `lora` low-rank adapters."""
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Names of the linear layers that get an adapter."""
    epochs: float = 3.0
    max_steps: int = 0
    """Steps at most; 0 means as many as the epochs need."""
    learning_rate: float = 1e-5
    gamma: float = 0.85
    """Factor on the learning rate after each epoch."""
    warmup_steps: int = 0
    weight_decay: float = 0.0
    clip: float = 0.0
    """Largest norm of the gradient; 0 switches clipping off."""
    batch: int = 4
    """Rows per device and step."""
    accumulate: int = 1
    """Steps whose gradients are added before the weights move."""
    context: int = 4096
    """Longest row in tokens; a longer one is refused."""
    seed: int = 42
    bf16: bool = True
    gradient_checkpointing: bool = False
    save_steps: int = 500
    keep: int = 3
    """Checkpoints that are kept."""
    log_steps: int = 10
    tensorboard: bool = True

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            BadInput: no file, not TOML, an unknown field (with the nearest valid name), a wrong type, a value out
                of range, or a path that is not there.
        """
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror}", code="missing_file", field="config") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}: not TOML: {error}", code="invalid_config", field="config") from None
        return cls.from_mapping(data, path)

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any], path: Path) -> Self:
        """Build from decoded TOML; `path` is the file it came from. Raises BadInput as `load` does."""
        hints = get_type_hints(cls)
        for name in data:
            if name not in hints:
                raise _bad(path, name, f"unknown field.{nearest(name, hints)}")
        for field in fields(cls):
            if field.default is MISSING and field.name not in data:
                raise _bad(path, field.name, "missing")
        values = {name: _typed(path, name, value, hints[name]) for name, value in data.items()}
        if values["model"].startswith((".", "/", "~")):
            values["model"] = str(_typed(path, "model", values["model"], Path))
        config = cls(**values)
        config._check(path)
        return config

    def _check(self, path: Path) -> None:
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise _bad(path, name, f"is {getattr(self, name)}; use {least} to {most}")
        if self.model.startswith("/") and not Path(self.model, "config.json").is_file():
            raise _bad(path, "model", f"{self.model} holds no model")
        if not self.images.is_dir():
            raise _bad(path, "images", f"{self.images} is not a folder")
        for name in ("rows", "judge_rows"):
            for file in getattr(self, name):
                if not file.is_file():
                    raise _bad(path, name, f"{file} is not a file")
        if not self.rows:
            raise _bad(path, "rows", "is empty; name at least one file")
        if bool(self.judge_rows) != (self.judge_share > 0):
            raise _bad(path, "judge_share", "judge_rows and a judge_share above 0 go together")


_RANGES: Mapping[str, tuple[float, float]] = {
    "judge_share": (0.0, 0.9),
    "lora_rank": (1, 1024),
    "lora_alpha": (1, 4096),
    "epochs": (0.001, 1000.0),
    "max_steps": (0, 10_000_000),
    "learning_rate": (1e-9, 1.0),
    "gamma": (0.01, 1.0),
    "warmup_steps": (0, 1_000_000),
    "weight_decay": (0.0, 1.0),
    "clip": (0.0, 1000.0),
    "batch": (1, 4096),
    "accumulate": (1, 4096),
    "context": (8, 1_000_000),
    "seed": (0, 2**31 - 1),
    "save_steps": (1, 1_000_000),
    "keep": (1, 1000),
    "log_steps": (1, 1_000_000),
}


def _typed(path: Path, name: str, value: Any, hint: Any) -> Any:
    """The value in the type of its field; paths become absolute. Raises BadInput."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise _bad(path, name, f"is {value!r}; use one of: {', '.join(get_args(hint))}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise _bad(path, name, f"is {type(value).__name__}; it must be a list")
        return tuple(_typed(path, f"{name}[{place}]", item, get_args(hint)[0]) for place, item in enumerate(value))
    wanted = {Path: (str,), float: (int, float)}.get(hint, (hint,))
    if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise _bad(path, name, f"is {type(value).__name__}; it must be {' or '.join(kind.__name__ for kind in wanted)}")
    if hint is Path:
        return (path.parent / Path(value).expanduser()).resolve()
    return float(value) if hint is float else value


def _bad(path: Path, field: str, message: str) -> BadInput:
    return BadInput(f"{path}: {field}: {message}", code="invalid_config", field=field)
