"""Query rows in bulk: COPY on Postgres, one prepared statement on SQLite; and removing them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

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
    """Insert the rows of one chunk. Raises IntegrityError when a line or a custom_id is there already."""
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
    connection = conn.connection.driver_connection
    assert connection is not None  # noqa: S101 - a connection in use has a driver's connection
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for row in rows:
            copy.write_row(row)


def delete_queries(conn: Connection, job_id: str, count: int) -> dict[str, int]:
    """Remove up to `count` rows of a job; how many there were of each status."""
    statement = select(_QUERIES.c.id, _QUERIES.c.status).where(_QUERIES.c.job_id == job_id).limit(count)
    found = conn.execute(statement).all()
    conn.execute(delete(_QUERIES).where(any_of(_QUERIES.c.id, [row.id for row in found])))
    counts: dict[str, int] = {}
    for row in found:
        counts[row.status] = counts.get(row.status, 0) + 1
    return counts
