"""What an object store does. Two keep it: a local folder and S3."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol


class Readable(Protocol):
    """Anything with a `read(size)` that gives bytes and, at the end, none."""

    def read(self, size: int = -1, /) -> bytes: ...


Data = bytes | Readable | Iterable[bytes]
"""What can be stored: bytes at once, a stream, or pieces. Streams and pieces are never held in memory whole."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One entry of a listing."""

    key: str
    size: int
    """Bytes."""
    modified_at: float
    """Seconds since the epoch."""


class Group(Protocol):
    """Objects that are stored together, which is much faster than one by one where a disk is asked to keep them.

    `put` may be called from several threads, not beside `keep` or `drop`.
    """

    threads: int
    """How many threads at `put` are fastest: many where each waits for a network, few where they want one folder."""

    def put(self, key: str, data: Data, *, media_type: str = "application/octet-stream") -> None:
        """Write an object unless its key has one. It may be seen from now on, or only after `keep`.

        Of two who write one key at once either may stay: groups are for keys that name their content.
        """
        ...

    def keep(self) -> None:
        """Return when everything that was put is there to stay, as after `ObjectStore.put`; then begin anew."""
        ...

    def drop(self) -> None:
        """Forget what was put and not kept. What can be seen already stays."""
        ...


class ObjectStore(Protocol):
    """Objects by key. Writes are atomic: a reader sees an object whole or not at all. Thread-safe.

    Every method that takes a key raises BadInput on one that could leave the store, StoreFull when no room is
    left, and Transient when the store cannot be reached or refuses us.
    """

    def put(
        self, key: str, data: Data, *, media_type: str = "application/octet-stream", if_absent: bool = False
    ) -> bool:
        """Write an object, in place of one that is there. True when it was written.

        With `if_absent`, an object that is there stays and the result is False. Where the server has no
        conditional writes, two writers at once may both write: use it to save work, never to decide.
        An error raised by `data` while it is read leaves nothing behind. When this returns, the object outlives a
        power cut.
        """
        ...

    def group(self) -> Group:
        """A new group, empty."""
        ...

    def open(self, key: str) -> BinaryIO:
        """A buffered, seekable stream of the object. Raises FileNotFoundError."""
        ...

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `start` up to but not including `end`; fewer when the object is shorter. Raises FileNotFoundError."""
        ...

    def size(self, key: str) -> int:
        """Bytes. Raises FileNotFoundError."""
        ...

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens when there is none."""
        ...

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects whose key begins with `prefix`, in key order (code points)."""
        ...

    def url(self, key: str, expires_s: float, *, filename: str | None = None) -> str | None:
        """An address that anybody may download from for a while, or None where the store has none.

        `filename` is the name that a browser saves it under. Whether the object is there is not checked.
        """
        ...

    def check(self) -> dict[str, bool]:
        """Write, read and delete a probe object; what the store can do (`conditional_put`, `urls`), for people.

        Raises:
            BadInput: the settings are wrong (bucket, credentials, endpoint or folder).
        """
        ...


def pieces(data: Data, size: int) -> Iterator[bytes]:
    """The data in pieces of exactly `size` bytes, the last one shorter; no piece for empty data."""
    if isinstance(data, bytes):
        yield from (data[at : at + size] for at in range(0, len(data), size))
        return
    pending = bytearray()
    for part in _parts(data, size):
        pending += part
        while len(pending) >= size:
            yield bytes(memoryview(pending)[:size])
            del pending[:size]
    if pending:
        yield bytes(pending)


def _parts(data: Readable | Iterable[bytes], size: int) -> Iterator[bytes]:
    if isinstance(data, Iterable) and not hasattr(data, "read"):
        yield from data
        return
    while part := data.read(size):
        yield part
