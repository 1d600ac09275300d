"""From content hash to decoded picture, with every way that this fails named."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps

from reasoning.errors import ModelError
from workers.engine.protocol import ImageLoader

MAX_PIXELS = 64_000_000
"""A picture with more pixels is taken for a decompression bomb; submit refuses it before an engine sees it."""


def decode(content_hash: str, load: ImageLoader) -> Image.Image:
    """The picture in RGB as people see it: upright as its camera noted, and on white where it is transparent.

    Raises:
        ModelError: `bad_image`, when it is not stored, not decodable or too large.
    """
    try:
        data = load(content_hash)
    except KeyError as error:
        raise _bad(content_hash, "is not in the object store; submit the job again") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
            if picture.width * picture.height > MAX_PIXELS:
                raise _bad(content_hash, f"has more than {MAX_PIXELS} pixels; scale it down")
            return _opaque(_upright(picture))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _bad(content_hash, f"cannot be decoded ({error}); send a PNG, JPEG, GIF or WebP file") from error


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # broken notes raise whatever their reader stumbles over; the picture may be whole
        return picture


def _opaque(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    # Left to itself, a drawing in black on nothing becomes black on black.
    drawn = picture.convert("RGBA")
    page = Image.new("RGBA", drawn.size, "white")
    return Image.alpha_composite(page, drawn).convert("RGB")


def _bad(content_hash: str, problem: str) -> ModelError:
    return ModelError(f"image {content_hash[:12]} {problem}", code="bad_image")
