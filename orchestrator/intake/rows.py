"""Query rows in bulk: COPY on Postgres, one prepared statement on SQLite; and removing them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select
from sqlalchemy.exc import DBAPIError

from reasoning.errors import InvariantBroken
from storage.portable import any_of
from storage.tables import Query

_QUERIES = Query.__table__

_COLUMNS = ("job_id", "line", "custom_id", "status", "body", "error", "retries", "created_at", "ended_at")
_INSERT = f"INSERT INTO queries ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - names only
_COPY = f"COPY queries ({', '.join(_COLUMNS)}) FROM STDIN"


@dataclass(frozen=True, slots=True)
class NewQuery:
    """One row to insert; JSON is encoded already. With an `error` the query is failed from the start."""

    line: int
    custom_id: str
    body: str
    error: str | None = None


def insert_queries(conn: Connection, job_id: str, queries: Sequence[NewQuery], now: float) -> None:
    """Insert the rows of one chunk. Raises DBAPIError, as any other statement would."""
    rows = [
        (
            job_id,
            query.line,
            query.custom_id,
            "failed" if query.error else "waiting",
            query.body,
            query.error,
            0,
            now,
            now if query.error else None,
        )
        for query in queries
    ]
    if not rows:
        return
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql(_INSERT, rows)
        return
    _copy(conn, rows)


def _copy(conn: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    import psycopg

    connection = conn.connection.driver_connection
    if not isinstance(connection, psycopg.Connection):
        raise InvariantBroken(f"COPY needs a connection of psycopg, not {type(connection).__name__}")
    try:
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        # SQLAlchemy does not see what goes past it; in its own clothes the error is translated like all others.
        raise DBAPIError(_COPY, None, error) from error


def delete_queries(conn: Connection, job_id: str, count: int) -> dict[str, int]:
    """Remove up to `count` rows of a job; how many there were of each status."""
    statement = select(_QUERIES.c.id, _QUERIES.c.status).where(_QUERIES.c.job_id == job_id).limit(count)
    found = conn.execute(statement).all()
    conn.execute(delete(_QUERIES).where(any_of(_QUERIES.c.id, [row.id for row in found])))
    counts: dict[str, int] = {}
    for row in found:
        counts[row.status] = counts.get(row.status, 0) + 1
    return counts
