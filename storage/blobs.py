"""Images, stored once under their content hash however many lines share them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, Row, select, text

from storage.objects import ObjectStore, keys
from storage.portable import any_of, insert_ignore
from storage.tables import Blob

_BLOBS = Blob.__table__

_FROM_JSON = text(
    "INSERT INTO blobs (sha256, bytes, media_type, width, height, bundle, bundle_start, created_at) "
    "SELECT new.*, CAST(:now AS double precision) FROM json_to_recordset(CAST(:rows AS json)) "
    "AS new (sha256 text, bytes bigint, media_type text, width integer, height integer, "
    "bundle text, bundle_start bigint) ON CONFLICT DO NOTHING"
)
"""Thousands of rows in one statement of two parameters."""


@dataclass(frozen=True, slots=True)
class BlobRow:
    """What is known about a stored image; sizes in bytes and pixels, and its place when it shares a bundle."""

    sha256: str
    bytes: int
    media_type: str
    width: int
    height: int
    bundle: str | None = None
    bundle_start: int | None = None


def known(conn: Connection, hashes: Iterable[str]) -> set[str]:
    """Those of the hashes that are stored already."""
    return set(conn.scalars(select(_BLOBS.c.sha256).where(any_of(_BLOBS.c.sha256, hashes))))


def get(conn: Connection, sha256: str) -> Row[Any] | None:
    """The row of one image."""
    return conn.execute(select(_BLOBS).where(_BLOBS.c.sha256 == sha256)).one_or_none()


def record(conn: Connection, rows: Sequence[BlobRow], now: float) -> None:
    """Note images whose bytes are in the object store to stay; those noted before stay as they are."""
    if not rows:
        return
    ordered = sorted(rows, key=lambda row: row.sha256)  # two who note the same images must not wait for each other
    if conn.dialect.name == "postgresql":
        conn.execute(_FROM_JSON, {"rows": orjson.dumps(ordered).decode(), "now": now})
    else:
        conn.execute(insert_ignore(_BLOBS, conn), [{**asdict(row), "created_at": now} for row in ordered])


def put_blob(  # noqa: PLR0917 - the columns of the row
    conn: Connection, store: ObjectStore, data: bytes, media_type: str, width: int, height: int, now: float
) -> str:
    """Store one image unless it is there, and return its hash.

    The object is written before the row, so that a row always has its bytes. It is written inside the
    caller's transaction: for many images use `known`, a `Bundler` and `record`.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    if get(conn, sha256) is None:
        store.put(keys.blob(sha256), data, media_type=media_type, if_absent=True)
        record(conn, [BlobRow(sha256, len(data), media_type, width, height)], now)
    return sha256


def read(store: ObjectStore, image: Row[Any]) -> bytes:
    """The bytes of an image, given its row. Raises FileNotFoundError."""
    if image.bundle is None:
        return store.read(keys.blob(image.sha256))
    return store.read(keys.bundle(image.bundle), image.bundle_start, image.bundle_start + image.bytes)
