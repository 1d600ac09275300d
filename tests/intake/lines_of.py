"""Lines, images and short cuts that the intake tests share."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from typing import Any

import orjson
from PIL import Image

from orchestrator.intake.keeper import Keeper
from orchestrator.intake.pictures import Picture
from orchestrator.intake.records import AcceptedLine, RefusedLine
from orchestrator.intake.seen import SeenIds
from orchestrator.intake.validate import LineRules, validate
from reasoning.errors import BadInput

Verdict = AcceptedLine | RefusedLine


def png(seed: int = 0, size: tuple[int, int] = (4, 4)) -> bytes:
    """A small picture; different seeds give different bytes."""
    stream = io.BytesIO()
    Image.new("RGB", size, (seed % 256, seed // 256 % 256, 7)).save(stream, "PNG")
    return stream.getvalue()


def native(custom_id: Any = "q-1", **changes: Any) -> dict[str, Any]:
    """A native line that is right, with some fields changed; a change to `...` leaves the field out."""
    line = {"custom_id": custom_id, "question": "How many?", "images": ["blob:" + "a" * 64], **changes}
    return {name: value for name, value in line.items() if value is not ...}


def chat(custom_id: str = "q-1", *, url: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    """A chat line that is right, with some fields of the body changed."""
    messages = [{"role": "user", "content": "How many?"}]
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": url,
        "body": {
            name: value for name, value in {"model": "m", "messages": messages, **body}.items() if value is not ...
        },
    }


def text(*lines: Any) -> bytes:
    """The lines as a file; bytes stand as they are."""
    return b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines) + b"\n"


def judged(data: bytes | Iterable[bytes], **rules: Any) -> dict[int, Verdict]:
    """What validation says, by line number."""
    with SeenIds() as seen:
        chunks = [data] if isinstance(data, bytes) else data
        return dict(validate(chunks, LineRules(**rules), seen.first_use))


def codes(verdict: Verdict) -> list[tuple[str | None, str]]:
    """Field and code of every error; empty for an accepted line."""
    return [(error.field, error.code) for error in verdict.errors] if isinstance(verdict, RefusedLine) else []


class MemoryKeeper(Keeper):
    """Keeps images in a dictionary."""

    threads = 2

    def __init__(self, **objects: bytes) -> None:
        self.stored: dict[str, bytes] = {}
        self.recorded: set[str] = set()
        self.objects = objects

    def known(self, hashes: Iterable[str]) -> set[str]:
        return self.recorded & set(hashes)

    def upload(self, picture: Picture, data: bytes) -> None:
        assert hashlib.sha256(data).hexdigest() == picture.sha256
        self.stored[picture.sha256] = data

    def record(self, pictures: Iterable[Picture]) -> None:
        for picture in pictures:
            assert picture.sha256 in self.stored
            self.recorded.add(picture.sha256)

    def read_object(self, key: str, max_bytes: int) -> bytes:
        if key not in self.objects:
            raise BadInput(f"there is no object {key!r}", code="image_missing")
        return self.objects[key][: max_bytes + 1]
