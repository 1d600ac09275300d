"""Rows of files. Their bytes lie in the object store under `object_key`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update

from storage.portable import any_of
from storage.tables import File

_FILES = File.__table__


def create(  # noqa: PLR0913 - one argument a column, by name only
    conn: Connection,
    *,
    id: str,  # noqa: A002 - the column's name
    project_id: str,
    purpose: str,
    filename: str,
    bytes: int,  # noqa: A002 - the column's name
    sha256: str,
    object_key: str,
    now: float,
    expires_at: float | None = None,
) -> None:
    """Note a file whose bytes are already in the object store."""
    values = {"id": id, "project_id": project_id, "purpose": purpose, "filename": filename, "bytes": bytes}
    rest = {"sha256": sha256, "object_key": object_key, "created_at": now, "expires_at": expires_at}
    conn.execute(insert(_FILES).values(**values, **rest))


def get(conn: Connection, project_id: str, file_id: str) -> Row[Any] | None:
    """A file of the project that is not deleted."""
    where = (_FILES.c.id == file_id, _FILES.c.project_id == project_id, _FILES.c.deleted_at.is_(None))
    return conn.execute(select(_FILES).where(*where)).one_or_none()


def find_by_content(conn: Connection, project_id: str, sha256: str, purpose: str) -> Row[Any] | None:
    """The newest file of the project with this content: a repeated upload need not be stored twice."""
    statement = (
        select(_FILES)
        .where(_FILES.c.project_id == project_id, _FILES.c.sha256 == sha256, _FILES.c.purpose == purpose)
        .where(_FILES.c.deleted_at.is_(None))
        .order_by(_FILES.c.created_at.desc(), _FILES.c.id.desc())
        .limit(1)
    )
    return conn.execute(statement).one_or_none()


def list_page(
    conn: Connection,
    project_id: str,
    *,
    purpose: str | None = None,
    after: str | None = None,
    limit: int = 100,
    newest_first: bool = True,
) -> Sequence[Row[Any]]:
    """Up to `limit` files in order of creation, after the file `after` (nothing when that one is unknown)."""
    statement = select(_FILES).where(_FILES.c.project_id == project_id, _FILES.c.deleted_at.is_(None))
    if purpose is not None:
        statement = statement.where(_FILES.c.purpose == purpose)
    if after is not None:
        found = select(_FILES.c.created_at).where(_FILES.c.id == after, _FILES.c.project_id == project_id)
        at = conn.execute(found).scalar_one_or_none()
        if at is None:
            return ()
        created, key = _FILES.c.created_at, _FILES.c.id
        beyond = (created < at, key < after) if newest_first else (created > at, key > after)
        statement = statement.where(or_(beyond[0], and_(created == at, beyond[1])))
    order = (_FILES.c.created_at, _FILES.c.id)
    statement = statement.order_by(*(column.desc() for column in order) if newest_first else order)
    return conn.execute(statement.limit(limit)).all()


def delete(conn: Connection, project_id: str, file_id: str, now: float) -> Row[Any] | None:
    """Mark a file deleted and return its row, or None when there is none; the caller then removes the object.

    The row stays, as jobs refer to it. Another file may share the object: ask `in_use` first.
    """
    row = get(conn, project_id, file_id)
    if row is not None:
        conn.execute(update(_FILES).where(_FILES.c.id == file_id).values(deleted_at=now))
    return row


def in_use(conn: Connection, object_keys: Iterable[str]) -> set[str]:
    """Those of the objects that a file which is not deleted still points at."""
    where = (any_of(_FILES.c.object_key, object_keys), _FILES.c.deleted_at.is_(None))
    return set(conn.scalars(select(_FILES.c.object_key).where(*where)))


def expired(conn: Connection, now: float, limit: int) -> Sequence[Row[Any]]:
    """Files whose time is over and that are not deleted yet."""
    where = (_FILES.c.expires_at <= now, _FILES.c.deleted_at.is_(None))
    return conn.execute(select(_FILES).where(*where).order_by(_FILES.c.expires_at).limit(limit)).all()


def stored_bytes(conn: Connection, project_id: str) -> int:
    """Bytes of the project's files, for its storage limit."""
    where = (_FILES.c.project_id == project_id, _FILES.c.deleted_at.is_(None))
    return int(conn.execute(select(func.coalesce(func.sum(_FILES.c.bytes), 0)).where(*where)).scalar_one())
