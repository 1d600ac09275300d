"""Which errors have one cause: the same code, and the same message but for numbers, names and hashes.

The mark of the cause is stored with the error of a query, so that a filter finds exactly the group that was counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

_QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'')
_HEX = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b")
_NUMBER = re.compile(r"\d+")
PATTERN_CHARACTERS = 160
MARK_BYTES = 4


def caused(error: Mapping[str, Any]) -> dict[str, Any]:
    """The error of a query as it is stored: with the mark of its cause."""
    return {**error, "cause": mark(str(error["code"]), str(error["message"]))}


def mark(code: str, message: str) -> str:
    """Eight hexadecimal digits that errors of one cause share."""
    text = f"{code}\n{fingerprint(message)}".encode(errors="replace")
    return blake2b(text, digest_size=MARK_BYTES).hexdigest()


def fingerprint(message: str) -> str:
    """What two messages of one cause have in common."""
    text = _QUOTED.sub("…", message[: 4 * PATTERN_CHARACTERS])
    return _NUMBER.sub("#", _HEX.sub("#", text))[:PATTERN_CHARACTERS]
