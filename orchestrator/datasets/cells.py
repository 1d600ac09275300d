"""What a cell says about images: bytes, an `Image` feature, base64, an address, a path, or a list of these."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import orjson

from reasoning.errors import BadInput

ADDRESSES = ("data:", "http://", "https://", "blob:", "object:")
MIN_BASE64 = 128
"""Characters of a text that may be an encoded image whatever it begins with; a path is shorter."""
HEADS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
"""What PNG, JPEG, GIF and WebP begin with in base64: a small image may be shorter than a path."""

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")

ImageValue = str | bytes | dict[str, Any]
"""A reference as lines hold it, encoded bytes, or `{"error": ...}`."""


def images_of(value: Any, column: str) -> list[ImageValue]:
    """The images of a cell in order; none for an empty one.

    Raises:
        BadInput: the cell holds something that is no image.
    """
    if value is None or value == "" or (isinstance(value, float) and value != value):  # noqa: PLR0124 - NaN
        return []
    if isinstance(value, bytes | bytearray | memoryview):
        return [bytes(value)]
    if isinstance(value, Mapping):
        return _feature(value, column)
    if isinstance(value, list | tuple):
        return [image for item in value for image in images_of(item, column)]
    if isinstance(value, str):
        return _text(value, column)
    raise _not_an_image(column, type(value).__name__)


def _feature(value: Mapping[str, Any], column: str) -> list[ImageValue]:
    """`{"bytes", "path"}` as Hugging Face stores images, or `{"url"}` as chat lines do."""
    if set(value) == {"error"}:  # an image that a reader could not find
        return [dict(value)]
    if isinstance(value.get("bytes"), bytes):
        return [value["bytes"]]
    for name in ("path", "url", "image_url"):
        if isinstance(value.get(name), str):
            return _text(value[name], column)
    raise _not_an_image(column, f"an object of {', '.join(map(str, list(value)[:5])) or 'nothing'}")


def _text(value: str, column: str) -> list[ImageValue]:
    text = value.strip()
    if text.startswith(ADDRESSES):
        return [text]
    if text.startswith("["):
        try:
            items = orjson.loads(text)
        except orjson.JSONDecodeError:
            items = [part.strip(" '\"") for part in text.strip("[]").split(",")]
        return images_of([item for item in items if item], column)
    if (len(text) >= MIN_BASE64 or text.startswith(HEADS)) and _BASE64.fullmatch(text):
        return [decoded(text, column)]
    return [text]


def decoded(text: str, column: str) -> bytes:
    """The bytes of base64 text. Raises BadInput."""
    try:
        clean = "".join(text.split())
        return base64.b64decode(clean + "=" * (-len(clean) % 4), validate=True)
    except binascii.Error as error:
        raise BadInput(f'column "{column}" holds broken base64: {error}.', code="image_unreadable") from error


def _not_an_image(column: str, what: str) -> BadInput:
    return BadInput(
        f'column "{column}" holds {what} where an image is wanted; name another with --column images=NAME.',
        code="invalid_image_reference",
    )
