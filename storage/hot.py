"""The statements that run for every message: written out for both databases, and sent together.

What such a statement costs is its round trip: on a busy machine two processes wait for a core each time. So those
that do not need each other's results travel in one, on Postgres with the start and the end of the transaction.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import Connection

_BY_KEY = b"SET LOCAL enable_seqscan = off"
"""Postgres makes its first plans while the tables are small and without statistics: they would scan them whole."""


@dataclass(frozen=True, slots=True)
class Hot:
    """One statement as each driver spells it: see `hot`."""

    postgresql: str
    sqlite: str
    json: frozenset[str]
    """Names of result columns that hold JSON, which SQLite returns as text."""


def hot(sql: str, sqlite: str = "", *, json: Iterable[str] = ()) -> Hot:
    """A statement with parameters `:name`, where `IN (:name)` asks for one of the ids of an `id_list`.

    `sqlite` is given where SQLite needs other words. `FOR UPDATE OF` is left out there: a writer is alone.
    """
    postgresql = _LIST.sub(r"= ANY (CAST(:\1 AS bigint[]))", sql)
    other = _LIST.sub(r"IN (SELECT value FROM json_each(:\1))", _LOCKING.sub("", sqlite or sql))
    return Hot(_PARAMETER.sub(r"%(\1)s", postgresql), other, frozenset(json))


_LIST = re.compile(r"IN \(:(\w+)\)")
_LOCKING = re.compile(r"FOR UPDATE OF \w+")
_PARAMETER = re.compile(r":(\w+)")

Step = tuple[Hot, Mapping[str, Any]]
"""A statement and its parameters."""


def together(conn: Connection, steps: Sequence[Step], *, commit: bool = False) -> list[list[Any]]:
    """Run the statements in order, all of them look-ups by key; the rows of each, with attributes by column name.

    With `commit` the transaction of `conn` ends with them. On Postgres all of this is one round trip.
    """
    driver: Any = conn.connection.driver_connection
    if conn.dialect.name != "postgresql":
        return [_on_sqlite(driver, hot, parameters) for hot, parameters in steps]
    with driver.pipeline():
        driver.execute(_BY_KEY)
        cursors = [driver.execute(hot.postgresql, parameters) for hot, parameters in steps]
        if commit:
            driver.commit()
    return [_rows(cursor, cursor.fetchall()) if cursor.description else [] for cursor in cursors]


def id_list(conn: Connection, ids: Iterable[int]) -> Any:
    """Ids as one parameter: see `hot`."""
    return list(ids) if conn.dialect.name == "postgresql" else orjson.dumps(list(ids)).decode()


def row_list(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as one JSON parameter: the text of the statement stays the same, whatever their number.

    NUL and lone surrogates, which a model may write and no database takes, are replaced.
    """
    try:
        encoded = orjson.dumps(rows).decode()
    except orjson.JSONEncodeError:
        return orjson.dumps(_storable(rows)).decode()
    return orjson.dumps(_storable(rows)).decode() if "\\u0000" in encoded else encoded


def is_storable(value: str) -> bool:
    """Whether the text is stored as it is: see `row_list`."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return {key: _storable(item) for key, item in value.items()} if isinstance(value, dict) else value


def _on_sqlite(driver: Any, hot: Hot, parameters: Mapping[str, Any]) -> list[Any]:
    cursor = driver.execute(hot.sqlite, parameters)
    rows = cursor.fetchall()
    if hot.json and rows:
        places = [place for place, column in enumerate(cursor.description) if column[0] in hot.json]
        rows = [_decoded(row, places) for row in rows]
    return _rows(cursor, rows) if rows else []


def _decoded(row: Sequence[Any], places: Sequence[int]) -> list[Any]:
    values = list(row)
    for place in places:
        if values[place] is not None:
            values[place] = orjson.loads(values[place])
    return values


def _rows(cursor: Any, rows: Iterable[Sequence[Any]]) -> list[Any]:
    shape: Any = _shape(tuple(column[0] for column in cursor.description))
    return [shape._make(row) for row in rows]


@lru_cache(maxsize=64)
def _shape(names: tuple[str, ...]) -> type:
    return namedtuple("Row", names)  # noqa: PYI024 - the columns are known at run time
