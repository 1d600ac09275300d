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
_KEYED = (*_COLUMNS, "content_key", "reused_from", "answer", "format_ok", "path", "trace_key")


@dataclass(frozen=True, slots=True)
class Earlier:
    """The result of an earlier run that a query takes over; `path` is encoded JSON."""

    query_id: int
    answer: str | None
    format_ok: bool | None
    path: str | None
    trace_key: str


@dataclass(frozen=True, slots=True)
class NewQuery:
    """One row to insert; JSON is encoded already. With an `error` or an `earlier` result it has ended already."""

    line: int
    custom_id: str
    body: str
    error: str | None = None
    content_key: str | None = None
    """What the result depends on; None where nobody will take it over."""
    earlier: Earlier | None = None

    @property
    def status(self) -> str:
        return "failed" if self.error else "done" if self.earlier else "waiting"


def insert_queries(conn: Connection, job_id: str, queries: Sequence[NewQuery], now: float) -> None:
    """Insert the rows of one chunk. Raises DBAPIError, as any other statement would."""
    for columns in (_COLUMNS, _KEYED):
        rows = [
            _values(job_id, query, now, columns)
            for query in queries
            if (query.content_key is None) is (columns is _COLUMNS)
        ]
        if not rows:
            continue
        if conn.dialect.name == "sqlite":
            conn.exec_driver_sql(_insert(columns), rows)
        else:
            _copy(conn, f"COPY queries ({', '.join(columns)}) FROM STDIN", rows)


def _values(job_id: str, query: NewQuery, now: float, columns: tuple[str, ...]) -> tuple[Any, ...]:
    status = query.status
    ended_at = None if status == "waiting" else now
    plain = (job_id, query.line, query.custom_id, status, query.body, query.error, 0, now, ended_at)
    if columns is _COLUMNS:
        return plain
    found = query.earlier
    result = (found.query_id, found.answer, found.format_ok, found.path, found.trace_key) if found else (None,) * 5
    return (*plain, query.content_key, *result)


def _insert(columns: tuple[str, ...]) -> str:
    return f"INSERT INTO queries ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - names only


def _copy(conn: Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    import psycopg

    connection = conn.connection.driver_connection
    if not isinstance(connection, psycopg.Connection):
        raise InvariantBroken(f"COPY needs a connection of psycopg, not {type(connection).__name__}")
    try:
        with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        # SQLAlchemy does not see what goes past it; in its own clothes the error is translated like all others.
        raise DBAPIError(statement, None, error) from error


def delete_queries(conn: Connection, job_id: str, count: int) -> dict[str, int]:
    """Remove up to `count` rows of a job; how many there were of each status."""
    statement = select(_QUERIES.c.id, _QUERIES.c.status).where(_QUERIES.c.job_id == job_id).limit(count)
    found = conn.execute(statement).all()
    conn.execute(delete(_QUERIES).where(any_of(_QUERIES.c.id, [row.id for row in found])))
    counts: dict[str, int] = {}
    for row in found:
        counts[row.status] = counts.get(row.status, 0) + 1
    return counts
