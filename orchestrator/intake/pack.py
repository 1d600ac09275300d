"""On the client's side: local images of an input file are sent once each, and the lines name them by hash.

Knows no HTTP: the caller passes in how to ask for images and how to send one. The file is read as a stream.
An image that cannot be read is replaced by its error, and a line that cannot be read by the line's error,
so that the server's validation tells about all lines in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from orchestrator.intake.lines import TooLong, split_lines
from orchestrator.intake.paths import FoundFile, locate, read_file
from orchestrator.intake.pictures import Limits, Picture, check_size
from orchestrator.intake.records import ImageRef, Problems
from orchestrator.intake.references import read_image
from orchestrator.intake.resolve import Recent, Verified
from orchestrator.intake.unpack import unpack
from reasoning.errors import BadInput

Has = Callable[[Sequence[str]], Iterable[str]]
"""Takes content hashes, returns those that the server has."""

Upload = Callable[[str, bytes, str], None]
"""Takes hash, bytes and media type of an image that the server lacks."""

ASK_LINES = 500
"""Lines looked at before the server is asked which of their images it has."""
ASK_BYTES = 4 * 2**20
ASK_HASHES = 500
"""Images asked about in one question."""

ADVICE = "Put it below the folder of the input file, or allow its folder (--image-root, or STAGEBEAM_IMAGE_ROOTS)."


@dataclass(frozen=True, slots=True, kw_only=True)
class PackLimits:
    """What the client holds at most; the server has limits of its own."""

    max_line_bytes: int = 32 * 2**20
    max_bytes: int = 20 * 2**30
    images: Limits = field(default_factory=lambda: Limits(20 * 2**20, 64_000_000))


def pack(
    chunks: Iterable[bytes], roots: Sequence[Path], has: Has, upload: Upload, limits: PackLimits | None = None
) -> Iterator[bytes]:
    """The input with `blob:` references in place of local images, in pieces of whole lines, uncompressed.

    `roots` are the folders that images may lie in: the input file's folder first, then those that the user
    allowed. Line numbers stay as they were. What is not a path to an image goes through unchanged.

    Raises:
        BadInput: the input as a whole cannot be read (`corrupt_compression`, `input_too_large`).
    """
    limits = limits or PackLimits()
    packer = _Packer(roots, has, upload, limits)
    number = 0
    for number, line in split_lines(unpack(chunks, limits.max_bytes), limits.max_line_bytes):
        packer.add(number, line)
        if packer.full:
            yield packer.take()
    if number:
        yield packer.take()


class _Packer:
    """Lines whose images have been looked at but not sent yet."""

    def __init__(self, roots: Sequence[Path], has: Has, upload: Upload, limits: PackLimits) -> None:
        self._roots = roots
        self._has = has
        self._upload = upload
        self._limits = limits
        self._verified = Verified()
        self._sent: Recent[str, bool] = Recent()
        self._lines: list[bytes] = []
        self._bytes = 0
        self._next = 1
        self._images: dict[str, tuple[FoundFile, Picture]] = {}

    @property
    def full(self) -> bool:
        return len(self._lines) >= ASK_LINES or self._bytes >= ASK_BYTES

    def add(self, number: int, line: bytes | TooLong) -> None:
        """Take one line up; blank lines before it are put back, so that numbers agree on both sides."""
        self._lines += [b""] * (number - self._next)
        self._next = number + 1
        written = self._rewritten(line)
        self._lines.append(written)
        self._bytes += len(written)

    def take(self) -> bytes:
        """Send the images that the server lacks and hand out the lines."""
        asked = [sha256 for sha256 in self._images if not self._sent.get(sha256)]
        there: set[str] = set()
        for start in range(0, len(asked), ASK_HASHES):
            there.update(self._has(asked[start : start + ASK_HASHES]))
        for sha256 in asked:
            if sha256 not in there:
                file, picture = self._images[sha256]
                self._send(file, picture)
            self._sent.put(sha256, True)
        text = b"".join(line + b"\n" for line in self._lines)
        self._lines, self._bytes = [], 0
        self._images.clear()
        return text

    def _send(self, file: FoundFile, picture: Picture) -> None:
        data = read_file(file, self._limits.images.max_bytes)
        if self._verified.check(data, self._limits.images).sha256 != picture.sha256:
            raise BadInput(f'"{file.path}" changed while it was read; submit again.', code="image_unreadable")
        self._upload(picture.sha256, data, picture.media_type)

    def _rewritten(self, line: bytes | TooLong) -> bytes:
        if isinstance(line, TooLong):
            message = f"the line is longer than {self._limits.max_line_bytes} bytes; name its images by path."
            return orjson.dumps({"error": {"code": "line_too_long", "message": message}})
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            return line
        if not isinstance(record, dict):
            return line
        try:
            return orjson.dumps(record) if self._replace(record) else line
        except TypeError:  # nested deeper than can be written; the server says so of the line as it is
            return line

    def _replace(self, record: dict[str, Any]) -> bool:
        """Replace the images of one line in place; whether there was any."""
        changed = False
        if isinstance(record.get("images"), str):
            record["images"] = [record["images"]]
        for holder, key in _places(record):
            replacement = self._packed(holder[key])
            if replacement is not None:
                holder[key] = replacement
                changed = True
        return changed

    def _packed(self, value: Any) -> str | dict[str, Any] | None:
        """The `blob:` reference or the error in place of a path; None for anything else."""
        ref = read_image(value, "", Problems(0)) if isinstance(value, str) else None
        if ref is None or ref.kind != "path":
            return None
        try:
            file, picture = self._look_at(ref)
        except BadInput as error:
            return {"error": {"code": error.code, "message": error.message}}
        self._images[picture.sha256] = (file, picture)
        return f"blob:{picture.sha256}"

    def _look_at(self, ref: ImageRef) -> tuple[FoundFile, Picture]:
        file = locate(ref.value, self._roots, advice=ADVICE)
        check_size(file.size, self._limits.images)
        picture = self._verified.by_file.get(file)
        if picture is None:
            picture = self._verified.check(read_file(file, self._limits.images.max_bytes), self._limits.images)
            self._verified.by_file.put(file, picture)
        return file, picture


def _places(record: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Where a line of either form holds images: container and key of each."""
    images = record.get("images")
    if isinstance(images, list):
        yield from ((images, place) for place in range(len(images)))
    body = record.get("body")
    messages = body.get("messages") if isinstance(body, dict) else None
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            image = part.get("image_url") if isinstance(part, dict) else None
            if isinstance(image, dict) and "url" in image:
                yield image, "url"
            elif isinstance(image, str):
                yield part, "image_url"
