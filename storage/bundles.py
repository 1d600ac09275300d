"""Small images that are stored together, many as one object.

An object of its own costs a file and its sync in a folder, a request in S3: more than all else that is done with a
small image when a job brings one along with each line. A row of `blobs` says where in which bundle an image lies.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field

from storage.objects import Group, keys

BUNDLED_BYTES = 2**18
"""Images up to this size go into bundles. For a larger one an object of its own costs little beside its bytes."""

BUNDLE_BYTES = 4 * 2**20
"""A bundle of about this size is written at once: memory stays small, and a folder or S3 likes writes this long."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of an image begin in a bundle."""

    bundle: str
    start: int


@dataclass(slots=True)
class _Open:
    """A bundle that is being filled."""

    images: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    """Bytes and media type by content hash."""
    size: int = 0


class Bundler:
    """Puts images into a group of objects. `put` may be called from several threads, not beside `keep` or `drop`."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._open = _Open()
        self._taken: set[str] = set()
        self._places: dict[str, Place] = {}
        self._lock = threading.Lock()

    def put(self, sha256: str, data: bytes, media_type: str) -> None:
        """Take an image, whose hash the caller has computed."""
        if len(data) > BUNDLED_BYTES:
            self._group.put(keys.blob(sha256), data, media_type=media_type)
            return
        with self._lock:
            if sha256 in self._taken:
                return
            self._taken.add(sha256)
            here = self._open
            here.images[sha256] = (data, media_type)
            here.size += len(data)
            if here.size < BUNDLE_BYTES:
                return
            self._open = _Open()
        self._write(here)

    def keep(self) -> dict[str, Place]:
        """Return when all images are there to stay: where those lie that share a bundle. Then begin anew."""
        self._write(self._open)
        places = self._places
        self._forget()
        self._group.keep()
        return places

    def drop(self) -> None:
        """Forget what was put and not kept."""
        self._forget()
        self._group.drop()

    def _forget(self) -> None:
        self._open, self._taken, self._places = _Open(), set(), {}

    def _write(self, full: _Open) -> None:
        """Store the images: one alone under its own name, more as a bundle that is named by what it holds."""
        if len(full.images) <= 1:
            for sha256, (data, media_type) in full.images.items():
                self._group.put(keys.blob(sha256), data, media_type=media_type)
            return
        bundle = hashlib.sha256("".join(full.images).encode()).hexdigest()
        self._group.put(keys.bundle(bundle), b"".join(data for data, _ in full.images.values()))
        start = 0
        for sha256, (data, _) in full.images.items():
            self._places[sha256] = Place(bundle, start)
            start += len(data)
