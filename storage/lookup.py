"""Lookups by id that run for every message: statements built once, plans that stay good while tables grow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from sqlalchemy import Connection

NAMED = {
    "postgresql": "{}.id = ANY (CAST(:ids AS bigint[]))",
    "sqlite": "{}.id IN (SELECT value FROM json_each(:ids))",
}
"""Condition on the rows whose ids are `:ids`. Statements that run for every message are built once, not each time."""


def id_list(conn: Connection, ids: Iterable[int]) -> Any:
    """The value of `:ids` in a statement that is kept by dialect (see `NAMED`)."""
    return list(ids) if conn.dialect.name == "postgresql" else orjson.dumps(list(ids)).decode()


def look_up_by_key(conn: Connection) -> None:
    """Keep Postgres from scanning whole tables in this transaction.

    Its first plans are made while the tables are small and without statistics, and are kept while they grow.
    """
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
