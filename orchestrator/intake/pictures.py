"""Encoded images: from a data URI to bytes, and whether the bytes are a picture that an engine can open."""

from __future__ import annotations

import binascii
import hashlib
import io
import urllib.parse
from dataclasses import dataclass

import pybase64
from PIL import Image, UnidentifiedImageError

from orchestrator.intake.wholeness import Size, whole_jpeg, whole_png
from reasoning.errors import BadInput

OPENED = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Formats that are decoded at all; the rarer ones have decoders with a worse record."""

MEDIA_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # a JPEG with more pictures behind the first, as phones and stereo cameras write them
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an image may be."""

    max_bytes: int
    """Encoded."""
    max_pixels: int
    """Width times height, read from the header before anything is decoded."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of an image that decodes. `sha256` is that of the encoded bytes."""

    sha256: str
    size: int
    """Encoded bytes."""
    media_type: str
    width: int
    height: int


def inspect(data: bytes, limits: Limits, sha256: str | None = None) -> Picture:
    """See that the image decodes, by a proof where there is one and by doing it elsewhere, and describe it.

    Raises:
        BadInput: `image_too_large`, `image_too_many_pixels`, `image_unsupported_format`, `image_unreadable`.
    """
    check_size(len(data), limits)
    if size := whole_png(data, limits.max_pixels):
        media_type = "image/png"
    elif size := whole_jpeg(data, limits.max_pixels):
        media_type = "image/jpeg"
    else:
        media_type, size = _decoded(data, limits)
    return Picture(sha256 or digest(data), len(data), media_type, *size)


def _decoded(data: bytes, limits: Limits) -> tuple[str, Size]:
    """Media type and size of an image that was decoded to see that it can be done. Raises BadInput."""
    try:
        with Image.open(io.BytesIO(data), formats=OPENED) as image:
            size = image.size
            if size[0] * size[1] > limits.max_pixels:
                raise _too_many_pixels(limits)
            # A JPEG comes out at an eighth of its size: all of its bytes are read, for half the time and little memory.
            image.draft("L", (1, 1))
            image.load()
            return MEDIA_TYPES[image.format or ""], size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(limits) from error
    except UnidentifiedImageError as error:
        raise BadInput(
            "the image has no format that is read here; use PNG, JPEG, WebP, GIF or BMP.",
            code="image_unsupported_format",
        ) from error
    except BadInput:
        raise
    except Exception as error:  # decoders raise whatever the broken bytes lead them to
        raise BadInput(
            f"the image cannot be decoded ({type(error).__name__}: {error}); check that the file is whole.",
            code="image_unreadable",
        ) from error


def check_size(size: int, limits: Limits) -> None:
    """Refuse an image of more bytes than allowed, or of none. Raises BadInput."""
    if size > limits.max_bytes:
        raise BadInput(
            f"the image is larger than {limits.max_bytes} bytes; scale it down or save it with more compression.",
            code="image_too_large",
        )
    if size == 0:
        raise BadInput("the image is empty; check that the file is whole.", code="image_unreadable")


def digest(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def from_data_uri(uri: str, limits: Limits) -> bytes:
    """The bytes of `data:[type][;base64],...`. The media type is not trusted: the bytes decide.

    Raises:
        BadInput: `invalid_data_uri`, `image_too_large`.
    """
    head, comma, payload = uri.partition(",")
    if not comma:
        raise BadInput("the data URI has no comma; write data:image/png;base64,...", code="invalid_data_uri")
    if not head.lower().endswith(";base64"):
        check_size(len(payload) // 3, limits)
        return urllib.parse.unquote_to_bytes(payload)
    check_size(len(payload) * 3 // 4 - 2 if len(payload) > 4 else 1, limits)
    digits = payload.rstrip("=")  # padding is optional in the wild, and what is too much of it does no harm
    try:
        return pybase64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"the data URI is not base64: {error}.", code="invalid_data_uri") from error


def _too_many_pixels(limits: Limits) -> BadInput:
    return BadInput(f"the image has more than {limits.max_pixels} pixels; scale it down.", code="image_too_many_pixels")
