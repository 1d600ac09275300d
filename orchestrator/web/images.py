"""Images of questions, decoded and written anew before a browser sees them; the original as a download alone."""

from __future__ import annotations

import io
import re

from PIL import Image, ImageOps
from starlette.responses import Response

from orchestrator.api.errors import NotFound
from orchestrator.web.pages import Ask
from storage import blobs

SIDES = {"small": 96, "large": 1280}
"""Longest side in pixels of what is shown."""
LEAST_SIDE = 320
"""Smaller pictures are shown enlarged by a whole number, every pixel sharp."""
HEADERS = {
    "cache-control": "private, max-age=86400, immutable",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


def picture(ask: Ask) -> Response:
    """An image as WebP, at most as large as a page shows it. Named by its hash, so it never changes."""
    side = ask.query.get("size", "large")
    key = (ask.viewer.project_id, _hash(ask), side if side in SIDES else "large")
    data = ask.web.pictures.get(key)
    if data is None:
        data = _drawn(_read(ask, key[1]), SIDES[key[2]], ask.use.settings.max_image_pixels)
        ask.web.pictures.put(key, data)
    return Response(data, headers=HEADERS, media_type="image/webp")


def original(ask: Ask) -> Response:
    """The bytes as they were sent, as a download: a browser never interprets them."""
    sha256 = _hash(ask)
    headers = {**HEADERS, "content-disposition": f'attachment; filename="{sha256[:16]}"'}
    return Response(_read(ask, sha256), headers=headers, media_type="application/octet-stream")


def _hash(ask: Ask) -> str:
    sha256 = ask.part("sha256")
    if not _SHA256.fullmatch(sha256):
        raise NotFound("image", sha256)
    return sha256


def _read(ask: Ask, sha256: str) -> bytes:
    with ask.use.db.read() as conn:
        image = blobs.get(conn, ask.viewer.project_id, sha256)
    if image is None:
        raise NotFound("image", sha256)
    try:
        return blobs.read(ask.use.objects, image)
    except FileNotFoundError:
        raise NotFound("image", sha256) from None


def _drawn(data: bytes, side: int, max_pixels: int) -> bytes:
    with Image.open(io.BytesIO(data)) as opened:
        if opened.width * opened.height > max_pixels:
            raise NotFound("image within the size limit", f"{opened.width}x{opened.height}")
        image = _upright(opened).convert("RGBA" if "A" in opened.getbands() else "RGB")
    small = LEAST_SIDE // max(image.size)
    if side > LEAST_SIDE and small > 1:
        image = image.resize((image.width * small, image.height * small), Image.Resampling.NEAREST)
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=88, method=2)
    return out.getvalue()


def _upright(opened: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(opened)
    except Exception:  # broken notes raise whatever their reader stumbles over; the picture may be whole
        return opened
