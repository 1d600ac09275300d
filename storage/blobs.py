"""Images, stored once under their content hash however many lines share them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, Row, select, text

from storage.hot import hot, together
from storage.objects import ObjectStore, keys
from storage.portable import any_of, insert_ignore
from storage.tables import Blob

_BLOBS = Blob.__table__

_FROM_JSON = text(
    "INSERT INTO blobs (sha256, bytes, media_type, width, height, bundle, bundle_start, project_id, created_at) "
    "SELECT new.*, CAST(:project_id AS text), CAST(:now AS double precision) "
    "FROM json_to_recordset(CAST(:rows AS json)) AS new (sha256 text, bytes bigint, media_type text, "
    "width integer, height integer, bundle text, bundle_start bigint) ON CONFLICT DO NOTHING"
)
"""Thousands of rows in one statement of three parameters."""


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


def known(conn: Connection, project_id: str, hashes: Iterable[str]) -> set[str]:
    """Those of the hashes that the project has stored already."""
    ours = select(_BLOBS.c.sha256).where(_BLOBS.c.project_id == project_id)
    return set(conn.scalars(ours.where(any_of(_BLOBS.c.sha256, hashes))))


def get(conn: Connection, project_id: str, sha256: str) -> Row[Any] | None:
    """The row of an image of the project."""
    found = select(_BLOBS).where(_BLOBS.c.sha256 == sha256, _BLOBS.c.project_id == project_id)
    return conn.execute(found).one_or_none()


_OF_ANY = hot("SELECT sha256, bytes, bundle, bundle_start FROM blobs WHERE sha256 = :sha256 LIMIT 1")


def of_any(conn: Connection, sha256: str) -> Any:
    """Where an image is, whichever project sent it, or None: for workers, whose queries name what their project has."""
    (rows,) = together(conn, [(_OF_ANY, {"sha256": sha256})])
    return rows[0] if rows else None


def record(conn: Connection, project_id: str, rows: Sequence[BlobRow], now: float) -> None:
    """Note images of a project whose bytes are in the object store to stay; those noted before stay as they are."""
    if not rows:
        return
    ordered = sorted(rows, key=lambda row: row.sha256)  # two who note the same images must not wait for each other
    if conn.dialect.name == "postgresql":
        conn.execute(_FROM_JSON, {"rows": orjson.dumps(ordered).decode(), "project_id": project_id, "now": now})
    else:
        conn.execute(
            insert_ignore(_BLOBS, conn),
            [{**asdict(row), "project_id": project_id, "created_at": now} for row in ordered],
        )


def read(store: ObjectStore, image: Any) -> bytes:
    """The bytes of an image, given its row or place. Raises FileNotFoundError."""
    if image.bundle is None:
        return store.read(keys.blob(image.sha256))
    return store.read(keys.bundle(image.bundle), image.bundle_start, image.bundle_start + image.bytes)
