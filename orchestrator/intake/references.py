"""From what a line says about an image to a typed reference; nothing is opened here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.intake.records import ImageRef, Problems, shorten

MAX_IMAGES = 100
"""More images than this on one line is taken for a mistake."""

FORMS = (
    "Give a path, a data URI (data:image/png;base64,...), an http(s) address, blob:SHA256 or object:KEY, "
    'or {"error": {"code", "message"}} for an image that you could not read.'
)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def read_image(value: Any, field: str, problems: Problems) -> ImageRef | None:
    """The reference that `value` is, or None with the reason noted."""
    if isinstance(value, str):
        return _from_text(value, field, problems)
    if isinstance(value, Mapping) and set(value) == {"error"}:
        return _from_marker(value["error"], field, problems)
    problems.add("invalid_image_reference", field, f"{field} is not an image. {FORMS}")
    return None


def _from_text(text: str, field: str, problems: Problems) -> ImageRef | None:
    if text[:5].lower() == "data:":
        return ImageRef("data", text)
    if text.startswith("blob:"):
        if _SHA256.fullmatch(text, 5):
            return ImageRef("blob", text[5:])
        problems.add(
            "invalid_image_reference",
            field,
            f"{field}: blob: must be followed by 64 lower-case hexadecimal digits, the SHA-256 of the stored image.",
        )
        return None
    if text.startswith("object:"):
        return ImageRef("object", text[7:])
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() in ("http", "https"):
        return ImageRef("url", text)
    if scheme or not text.strip() or "\0" in text:
        problems.add("invalid_image_reference", field, f'{field} is "{shorten(text, 80)}". {FORMS}')
        return None
    return ImageRef("path", text)


def _from_marker(error: Any, field: str, problems: Problems) -> ImageRef | None:
    if not isinstance(error, Mapping) or not all(isinstance(error.get(key), str) for key in ("code", "message")):
        problems.add("invalid_image_reference", field, f"{field}.error must hold the texts code and message.")
        return None
    return ImageRef("error", shorten(error["message"]), code=shorten(error["code"], 60))
