"""Images, stored once under their content hash however many lines share them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from storage.objects import Group, ObjectStore, keys
from storage.portable import any_of, insert_ignore
from storage.tables import Blob

_BLOBS = Blob.__table__


@dataclass(frozen=True, slots=True)
class BlobRow:
    """What is known about a stored image; sizes in bytes and pixels."""

    sha256: str
    bytes: int
    media_type: str
    width: int
    height: int


def known(conn: Connection, hashes: Iterable[str]) -> set[str]:
    """Those of the hashes that are stored already."""
    return set(conn.scalars(select(_BLOBS.c.sha256).where(any_of(_BLOBS.c.sha256, hashes))))


def get(conn: Connection, sha256: str) -> Row[Any] | None:
    """The row of one image."""
    return conn.execute(select(_BLOBS).where(_BLOBS.c.sha256 == sha256)).one_or_none()


def upload(group: Group, sha256: str, data: bytes, media_type: str) -> None:
    """Put an image, whose hash the caller has computed, into a group of objects.

    Outside of transactions: it may take a while. The group must be kept before the image is recorded.
    """
    group.put(keys.blob(sha256), data, media_type=media_type)


def record(conn: Connection, rows: Sequence[BlobRow], now: float) -> None:
    """Note images whose bytes are in the object store; those noted before stay as they are."""
    if rows:
        values = [
            {
                "sha256": row.sha256,
                "bytes": row.bytes,
                "media_type": row.media_type,
                "width": row.width,
                "height": row.height,
                "created_at": now,
            }
            for row in sorted(rows, key=lambda row: row.sha256)
        ]
        conn.execute(insert_ignore(_BLOBS, conn), values)


def put_blob(  # noqa: PLR0917 - the columns of the row
    conn: Connection, store: ObjectStore, data: bytes, media_type: str, width: int, height: int, now: float
) -> str:
    """Store one image unless it is there, and return its hash.

    The object is written before the row, so that a row always has its bytes. It is written inside the
    caller's transaction: for many images use `known`, `upload`, `Group.keep` and `record`.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    if get(conn, sha256) is None:
        store.put(keys.blob(sha256), data, media_type=media_type, if_absent=True)
        record(conn, [BlobRow(sha256, len(data), media_type, width, height)], now)
    return sha256


def read(store: ObjectStore, sha256: str) -> bytes:
    """The bytes of an image. Raises FileNotFoundError."""
    return store.read(keys.blob(sha256))
