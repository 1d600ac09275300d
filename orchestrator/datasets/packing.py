"""Lines as JSONL whose image bytes are stored first, each once, and named by content hash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from orchestrator.datasets.spec import Line
from orchestrator.intake.pack import Has, Upload
from orchestrator.intake.pictures import Limits, Picture
from orchestrator.intake.resolve import Recent, Verified
from reasoning.errors import BadInput

GROUP_LINES = 500
GROUP_IMAGES = 800
GROUP_BYTES = 16 * 2**20
"""Lines and image bytes held before the server is asked which of the images it has."""

LIMITS = Limits(20 * 2**20, 64_000_000)


def jsonl(lines: Iterable[Line], has: Has, upload: Upload, limits: Limits = LIMITS) -> Iterator[bytes]:
    """The lines in pieces of whole lines; bytes in `images` become `blob:` references.

    An image that cannot be used is replaced by its error, which validation then tells with its line.
    """
    packer = _Packer(has, upload, limits)
    for line in lines:
        packer.add(line)
        if packer.full:
            yield packer.take()
    yield packer.take()


class _Packer:
    def __init__(self, has: Has, upload: Upload, limits: Limits) -> None:
        self._has = has
        self._upload = upload
        self._limits = limits
        self._verified = Verified()
        self._sent: Recent[str, bool] = Recent()
        self._lines: list[bytes] = []
        self._images: dict[str, tuple[bytes, Picture]] = {}
        self._bytes = 0

    @property
    def full(self) -> bool:
        return len(self._lines) >= GROUP_LINES or len(self._images) >= GROUP_IMAGES or self._bytes >= GROUP_BYTES

    def add(self, line: Line) -> None:
        images = line.get("images")
        if isinstance(images, list) and any(isinstance(image, bytes) for image in images):
            line = {**line, "images": [self._named(image) for image in images]}
        self._lines.append(orjson.dumps(line, default=str))
        self._bytes += len(self._lines[-1])

    def take(self) -> bytes:
        """Send the images that are missing and hand out the lines."""
        asked = [sha256 for sha256 in self._images if not self._sent.get(sha256)]
        there = set(self._has(asked)) if asked else set()
        for sha256 in asked:
            if sha256 not in there:
                data, picture = self._images[sha256]
                self._upload(sha256, data, picture.media_type)
            self._sent.put(sha256, True)
        text = b"".join(line + b"\n" for line in self._lines)
        self._lines, self._bytes = [], 0
        self._images.clear()
        return text

    def _named(self, image: Any) -> Any:
        if not isinstance(image, bytes):
            return image
        try:
            picture = self._verified.check(image, self._limits)
        except BadInput as error:
            return {"error": {"code": error.code, "message": error.message}}
        if picture.sha256 not in self._images and not self._sent.get(picture.sha256):
            self._images[picture.sha256] = (image, picture)
            self._bytes += len(image)
        return f"blob:{picture.sha256}"
