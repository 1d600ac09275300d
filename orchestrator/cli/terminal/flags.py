"""Flags as the fields of a request."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.cli.terminal.exits import CommandError, Exit


def given(**flags: Any) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


def json_object(flag: str, text: str | None) -> dict[str, Any]:
    """The object that a flag holds as JSON; empty without one. Raises CommandError."""
    try:
        value = json.loads(text) if text else {}
    except ValueError as error:
        raise CommandError(f"{flag} is not JSON: {error}", exit_code=Exit.BAD_INPUT, code="invalid_json") from None
    if not isinstance(value, dict):
        raise CommandError(f"{flag} must be a JSON object", exit_code=Exit.BAD_INPUT, code="invalid_json")
    return value


def pairs(flag: str, values: list[str] | None) -> dict[str, str | list[str]]:
    """What `NAME=VALUE` flags say; a name given twice has a list. Raises CommandError."""
    found: dict[str, list[str]] = {}
    for value in values or ():
        name, sign, rest = value.partition("=")
        if not sign:
            raise CommandError(f'{flag} is "{value}"; write NAME=VALUE', exit_code=Exit.BAD_INPUT, code="invalid_flag")
        found.setdefault(name, []).append(rest)
    return {name: items[0] if len(items) == 1 else items for name, items in found.items()}
