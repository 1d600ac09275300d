"""Rows of a SELECT on a read-only connection. The server's settings name connections; rows never hold a password."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from reasoning.errors import BadInput, Transient, nearest
from storage.database import parse_url
from storage.settings import Settings

ROWS_AT_ONCE = 500
TIMEOUT_S = 600
"""The longest a query may take on Postgres."""


def read_query(
    settings: Settings, connection: str, query: str, due_at: float
) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """Column names, and the rows as they are read.

    Raises:
        BadInput: unknown connection, a query that is refused, or credentials that are.
        Transient: the database does not answer.
    """
    statement = checked_query(query)
    urls = settings.sql_connections
    if connection not in urls:
        raise BadInput(
            f'there is no SQL connection "{connection}".{nearest(connection, urls)} The server names them in '
            "STAGEBEAM_SQL_CONNECTIONS.",
            code="unknown_connection",
            field="source.address",
        )
    rows = _rows(connection, parse_url(urls[connection].get_secret_value()), statement, due_at)
    names = next(rows)
    return list(names), rows


def checked_query(query: str) -> str:
    """One SELECT. Raises BadInput."""
    statement = query.strip().rstrip(";").strip()
    if ";" in statement or statement.partition(" ")[0].partition("\n")[0].upper() not in ("SELECT", "WITH"):
        raise BadInput("an SQL source takes one SELECT without semicolons", code="invalid_query", field="source.query")
    return statement


def _rows(name: str, url: URL, statement: str, due_at: float) -> Iterator[Any]:
    """The column names first, then the rows."""
    engine = _read_only(url)
    try:
        with engine.connect() as conn:
            yield from _executed(conn, statement, due_at)
    except SQLAlchemyError as error:
        raise _translated(name, error) from error
    finally:
        engine.dispose()


def _executed(conn: Connection, statement: str, due_at: float) -> Iterator[Any]:
    reading = conn.execution_options(postgresql_readonly=True, stream_results=True, max_row_buffer=ROWS_AT_ONCE)
    prepared = text(statement)
    given = {"slot": datetime.fromtimestamp(due_at, UTC)} if ":slot" in statement else {}
    result = reading.execute(prepared, given)
    yield list(result.keys())
    for row in result.mappings():
        yield dict(row)


def _read_only(url: URL) -> Engine:
    """Connections that cannot write, twice over: the file is opened for reading, or the session is read-only, and so
    is the transaction.
    """
    if url.get_backend_name() == "sqlite":
        place = f"file:{quote(str(url.database))}?mode=ro"
        engine = create_engine(url, creator=lambda: sqlite3.connect(place, uri=True, check_same_thread=False))
        event.listen(engine, "connect", _query_only)
        return engine
    options = f"-c default_transaction_read_only=on -c statement_timeout={TIMEOUT_S * 1000}"
    arguments = {"options": options, "connect_timeout": 10, "application_name": "stagebeam-dataset"}
    return create_engine(url, connect_args=arguments)


def _query_only(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA query_only=ON")


def _translated(name: str, error: SQLAlchemyError) -> BadInput | Transient:
    cause = error.orig if isinstance(error, DBAPIError) else error
    first = str(cause).strip().partition("\n")[0]
    state = getattr(cause, "sqlstate", None) or ""
    where = f'the SQL connection "{name}"'
    connecting = type(cause).__name__ == "OperationalError" and not state
    if state.startswith("28") or (connecting and any(word in first for word in _REFUSED)):
        return BadInput(
            f"{where} was refused: {first}. Renew its credentials in STAGEBEAM_SQL_CONNECTIONS, then restart the "
            "scheduler.",
            code="credentials_refused",
            field="source.address",
        )
    if connecting and any(word in first for word in _ABSENT):
        return BadInput(
            f"{where} leads nowhere: {first}. Correct it in STAGEBEAM_SQL_CONNECTIONS, then restart the scheduler.",
            code="connection_refused",
            field="source.address",
        )
    if connecting and type(cause).__module__.startswith("psycopg"):
        return Transient(f"{where} does not answer ({first})")
    return BadInput(
        f"the query on {where} failed: {first}. Correct the query of the dataset.",
        code="query_failed",
        field="source.query",
    )


_REFUSED = ("password", "authentication", "no pg_hba.conf entry", "role ")
"""Words by which a server refuses somebody; psycopg gives failed connections no SQLSTATE."""
_ABSENT = ("FATAL:  database ", "unable to open database file")
"""Words for a database that is not there."""
