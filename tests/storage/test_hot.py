"""Statements that travel together, on both databases."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from reasoning.errors import Transient
from storage.database import Database
from storage.hot import Hot, hot, id_list, is_storable, row_list, together

ADD = hot(
    """INSERT INTO projects (id, name, limits, created_at) SELECT id, name, limits, 0
        FROM json_to_recordset(CAST(:rows AS json)) AS v(id text, name text, limits json) RETURNING id, limits""",
    """INSERT INTO projects (id, name, limits, created_at)
        SELECT value ->> 'id', value ->> 'name', value ->> 'limits', 0 FROM json_each(:rows) WHERE true
        RETURNING id, limits""",
    json=("limits",),
)
COUNT = hot("SELECT count(*) AS projects, :word AS word FROM projects")
LINES = hot("SELECT value FROM lines WHERE value IN (:ids) ORDER BY value FOR UPDATE OF lines")


def rows(*names: str, **more: object) -> dict[str, str]:
    return {"rows": row_list([{"id": name, "name": name, "limits": {"deep": [1, None]}, **more} for name in names])}


def test_later_statements_see_earlier_ones_and_json_comes_decoded(database: Database):
    with database.write() as conn:
        added, counted = together(conn, [(ADD, rows("a", "b")), (COUNT, {"word": "x"})])
    assert [(row.id, row.limits) for row in added] == [("a", {"deep": [1, None]}), ("b", {"deep": [1, None]})]
    assert [(row.projects, row.word) for row in counted] == [(3, "x")]


def test_the_transaction_ends_with_them_when_asked(database: Database):
    def count() -> int:
        with database.read() as conn:
            return int(together(conn, [(COUNT, {"word": ""})])[0][0].projects)

    with ThreadPoolExecutor(1) as other, database.write() as conn:
        together(conn, [(ADD, rows("a"))])
        assert other.submit(count).result() == 1
        together(conn, [(ADD, rows("b"))], commit=True)
        if database.dialect == "postgresql":
            assert other.submit(count).result() == 3
    assert count() == 3


def test_an_error_takes_all_of_them_back(database: Database):
    with pytest.raises((psycopg.IntegrityError, sqlite3.IntegrityError)), database.write() as conn:
        together(conn, [(ADD, rows("a")), (ADD, rows("a")), (ADD, rows("b"))], commit=True)
    with database.write() as conn:
        assert together(conn, [(COUNT, {"word": ""})])[0][0].projects == 1


def test_a_server_that_went_away_passes(database: Database):
    if database.dialect != "postgresql":
        pytest.skip("SQLite is no server")
    with database.write() as conn:
        (pid,) = conn.exec_driver_sql("SELECT pg_backend_pid()").scalars()
    with pytest.raises(Transient), database.write() as conn:  # noqa: PT012 - the error must come in the block
        with database.write() as another:
            another.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")
        together(conn, [(COUNT, {"word": ""})])
    with database.write() as conn:
        assert together(conn, [(COUNT, {"word": ""})])[0]


def test_ids_are_one_parameter(database: Database):
    with database.write() as conn:
        conn.exec_driver_sql("CREATE TEMPORARY TABLE lines (value bigint)")
        conn.exec_driver_sql("INSERT INTO lines VALUES (1), (2), (3)")
        for ids, found in (([1, 3, 2**40], [1, 3]), ([], [])):
            assert [row.value for row in together(conn, [(LINES, {"ids": id_list(conn, ids)})])[0]] == found


def test_what_no_database_takes_is_replaced(database: Database):
    with database.write() as conn:
        (added,) = together(conn, [(ADD, rows("a\0", limits={"b": "\ud800", "c": ["\0"]}))])
    assert [(row.id, row.limits["c"]) for row in added] == [
        ("a\N{REPLACEMENT CHARACTER}", ["\N{REPLACEMENT CHARACTER}"])
    ]
    assert [is_storable(text) for text in ("a", "a\0", "\ud800")] == [True, False, False]


def test_each_driver_has_its_own_spelling():
    assert hot("SELECT 1 WHERE id IN (:ids) AND a = :b") == Hot(
        "SELECT 1 WHERE id = ANY (CAST(%(ids)s AS bigint[])) AND a = %(b)s",
        "SELECT 1 WHERE id IN (SELECT value FROM json_each(:ids)) AND a = :b",
        frozenset(),
    )
