"""Labels of a job: short words and `key=value` pairs, kept with whatever else its metadata holds.

One thing under three names: `metadata` in the JSON API and on the OpenAI wire, `--label` on the command line, and the
labels on the pages. A word alone is a key with an empty value.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from reasoning.errors import BadInput

MOST = 16
"""Labels of a job; with the two lengths below as the OpenAI wire has them."""
KEY_CHARACTERS = 64
VALUE_CHARACTERS = 512


def read(labels: Iterable[str]) -> dict[str, str]:
    """Metadata from labels.

    Raises:
        BadInput: too many, too long, twice the same key, or characters that are not printable.
    """
    found: dict[str, str] = {}
    for label in labels:
        key, _, value = label.partition("=")
        key, value = key.strip(), value.strip()
        if not key or not label.isprintable() or '"' in label:
            raise _bad(f"{label[:40]!r} is no label; write a word or key=value, printable and without quotes")
        if len(key) > KEY_CHARACTERS or len(value) > VALUE_CHARACTERS:
            raise _bad(f'"{key[:40]}" is too long; a key has {KEY_CHARACTERS} characters, a value {VALUE_CHARACTERS}')
        if key in found:
            raise _bad(f'"{key}" stands there twice; a key has one value')
        found[key] = value
    if len(found) > MOST:
        raise _bad(f"these are {len(found)} labels; a job has {MOST} at most")
    return found


def split(text: str) -> list[str]:
    """The labels of one line, set apart by blanks; quotes hold one with blanks together. Raises BadInput."""
    try:
        return shlex.split(text)
    except ValueError:
        raise _bad("a quote is not closed") from None


def joined(metadata: Mapping[str, Any] | None) -> str:
    """The line that `split` and `read` turn into the same metadata; values that are no text stand as JSON."""
    return shlex.join(shown(metadata))


def shown(metadata: Mapping[str, Any] | None) -> list[str]:
    """Labels for people, in the order they were given."""
    return [f"{key}={text}" if (text := _text(value)) else key for key, value in (metadata or {}).items()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _bad(message: str) -> BadInput:
    return BadInput(message, code="invalid_label", field="labels")
