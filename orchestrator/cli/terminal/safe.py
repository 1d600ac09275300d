"""Text of users and models on a terminal: nothing in it may steer the terminal."""

from __future__ import annotations

import json
import re
from typing import Any

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, marks that reorder text, and halves of characters."""


def plain(text: str) -> str:
    r"""The text with control and reordering characters written out, such as `\x1b`."""
    return _STEERING.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str, width: int) -> str:
    """The text on one line of at most `width` characters."""
    flat = " ".join(plain(text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def to_json(data: Any, *, indent: int | None = None) -> str:
    """JSON whose strings hold no character that steers a terminal; reads back as the same data."""
    return harmless_json(json.dumps(data, ensure_ascii=False, indent=indent))


def harmless_json(text: str) -> str:
    """The same JSON with steering characters as escapes: they can stand nowhere but inside strings."""
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
