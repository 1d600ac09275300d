"""Settings of an engine, read from a mapping or from one line of text, refused when anything in them is unknown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from reasoning.errors import BadInput, nearest

Config = TypeVar("Config")

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def parse_settings(text: str) -> dict[str, Any]:
    """Settings of one line: a JSON object, or `name=value` pairs between commas (`crash=0.1,slots=8`).

    Raises:
        BadInput: neither form.
    """
    text = text.strip()
    if text.startswith("{"):
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadInput(f"engine settings are not valid JSON: {error}", code="invalid_settings") from error
        return dict(data)
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    for name, equals, _ in pairs:
        if not equals:
            raise BadInput(f'engine setting "{name}" has no value; write {name}=VALUE', code="invalid_settings")
    return {name.strip(): value.strip() for name, _, value in pairs}


def build(cls: type[Config], settings: Mapping[str, Any]) -> Config:
    """An instance of the frozen dataclass `cls`; texts are converted to the type of the field's default.

    Raises:
        BadInput: unknown name (with the nearest valid one) or a value that does not convert.
    """
    known = {f.name: f.default for f in fields(cls)}  # type: ignore[arg-type]
    for name in settings:
        if name not in known:
            raise BadInput(
                f'unknown {cls.__name__} setting "{name}".{nearest(name, known)}', code="unknown_field", field=name
            )
    return cls(**{name: _convert(name, value, known[name]) for name, value in settings.items()})


def at_least(options: object, **least: int) -> None:
    """Refuse numbers below the `least` that makes sense. Raises BadInput."""
    for name, number in least.items():
        if getattr(options, name) < number:
            raise BadInput(
                f"engine setting {name} is {getattr(options, name)}; use {number} or more",
                code="invalid_settings",
                field=name,
            )


def _convert(name: str, value: Any, default: Any) -> Any:
    wanted = type(default)
    try:
        if isinstance(value, str) and wanted is not str:
            return _boolean(value) if wanted is bool else wanted(value)
    except ValueError:
        pass
    else:
        if type(value) is wanted:
            return value
        if wanted is float and type(value) is int:
            return float(value)
    raise BadInput(
        f"engine setting {name} is {value!r}; it must be a {wanted.__name__}", code="invalid_type", field=name
    )


def _boolean(value: str) -> bool:
    if value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise ValueError(value)
