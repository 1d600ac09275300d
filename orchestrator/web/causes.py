"""Failed queries grouped by what went wrong, so that 37 lines with one cause are one line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'')
_HEX = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b")
_NUMBER = re.compile(r"\d+")
PATTERN_CHARACTERS = 160
EXAMPLES = 3


@dataclass(slots=True)
class Cause:
    """Queries of one job that failed in the same way."""

    job_id: str
    code: str
    pattern: str
    """The message with numbers, names and hashes left out."""
    message: str
    """The first message of the group, whole."""
    retryable: bool
    count: int = 0
    stages: set[str] = field(default_factory=set)
    examples: list[Any] = field(default_factory=list)
    """The first queries of the group."""


def group(rows: Iterable[Any]) -> list[Cause]:
    """Causes, most frequent first."""
    found: dict[tuple[str, str, str], Cause] = {}
    for row in rows:
        error = row.error or {}
        code, message = str(error.get("code", "unknown")), str(error.get("message", ""))
        key = (row.job_id, code, fingerprint(message))
        cause = found.get(key)
        if cause is None:
            cause = found[key] = Cause(*key, message, bool(error.get("retryable")))
        cause.count += 1
        if error.get("stage"):
            cause.stages.add(str(error["stage"]))
        if len(cause.examples) < EXAMPLES:
            cause.examples.append(row)
    return sorted(found.values(), key=lambda cause: (-cause.count, cause.code))


def fingerprint(message: str) -> str:
    """What two messages of one cause have in common."""
    text = _QUOTED.sub("…", message[: 4 * PATTERN_CHARACTERS])
    return _NUMBER.sub("#", _HEX.sub("#", text))[:PATTERN_CHARACTERS]
