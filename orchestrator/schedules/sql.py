"""Rows of a SELECT on a read-only connection. The server's settings name connections; rows never hold a password."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, text
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
    rows = _rows(parse_url(urls[connection].get_secret_value()), statement, due_at)
    names = next(rows)
    return list(names), rows


def checked_query(query: str) -> str:
    """One SELECT. Raises BadInput."""
    statement = query.strip().rstrip(";").strip()
    if ";" in statement or statement.partition(" ")[0].partition("\n")[0].upper() not in ("SELECT", "WITH"):
        raise BadInput("an SQL source takes one SELECT without semicolons", code="invalid_query", field="source.query")
    return statement


def _rows(url: URL, statement: str, due_at: float) -> Iterator[Any]:
    """The column names first, then the rows."""
    engine = create_engine(url, connect_args=_arguments(url))
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _query_only)
    try:
        with engine.connect() as conn:
            yield from _executed(conn, statement, due_at)
    except SQLAlchemyError as error:
        raise _translated(error) from error
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


def _arguments(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {}
    options = f"-c default_transaction_read_only=on -c statement_timeout={TIMEOUT_S * 1000}"
    return {"options": options, "connect_timeout": 10, "application_name": "stagebeam-dataset"}


def _query_only(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA query_only=ON")


def _translated(error: SQLAlchemyError) -> BadInput | Transient:
    cause = error.orig if isinstance(error, DBAPIError) else error
    first = str(cause).strip().partition("\n")[0]
    state = getattr(cause, "sqlstate", None) or ""
    refused = "password" in first or "authentication" in first or state.startswith("28")
    if refused:
        return BadInput(
            f"the SQL connection was refused: {first}. Renew its credentials in STAGEBEAM_SQL_CONNECTIONS.",
            code="credentials_refused",
            field="source.address",
        )
    if type(cause).__name__ == "OperationalError" and not state and type(cause).__module__.startswith("psycopg"):
        return Transient(f"the SQL connection does not answer ({first})")
    return BadInput(f"the SQL query failed: {first}", code="query_failed", field="source.query")
