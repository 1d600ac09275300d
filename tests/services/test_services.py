from __future__ import annotations

import subprocess
import sys
from typing import Any

import psycopg
import pytest
import redis

from tests.services.postgres import Postgres
from tests.services.processes import children
from tests.waiting import wait_until


def test_redis_is_empty_for_each_test_and_answers(redis_url: str):
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_redis_is_empty_again(redis_url: str):
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_waiting_gives_what_was_seen_or_tells_it():
    values = iter([0, None, "there"])
    assert wait_until(lambda: next(values), 5) == "there"
    with pytest.raises(AssertionError, match=r"three workers within 0\.05 s; last seen: 0"):
        wait_until(lambda: 0, 0.05, what="three workers")

    def broken() -> Any:
        raise ConnectionRefusedError

    with pytest.raises(AssertionError) as caught:
        wait_until(broken, 0.05)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_a_child_that_runs_on_is_seen():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in children()
    finally:
        child.communicate()
    assert child.pid not in children()


@pytest.mark.parametrize("rows", [3, 20_000], ids=["few", "many"])
def test_a_postgres_that_was_given_back_is_as_new(postgres_server: Postgres, rows: int):
    def contents(name: str) -> dict[str, Any]:
        with postgres_server.connect(name) as conn:
            tables = [row[0] for row in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
            return {table: conn.execute(f"SELECT * FROM {table}".encode()).fetchall() for table in tables}

    first = postgres_server.create()
    new = contents(first)
    left = postgres_server.connect(first)
    for _ in range(2):
        left.execute("UPDATE projects SET name = 'mine'")
        left.execute("UPDATE alembic_version SET version_num = 'newer'")
        some = f"SELECT 0, repeat('a', 60), 'b', n FROM generate_series(1, {rows}) AS n"
        left.execute(f"INSERT INTO audit (at, actor, action, subject) {some}")
        assert left.execute("SELECT min(id) FROM audit").fetchone() == (1,)
        left.commit()
        postgres_server.give_back(first)
        with pytest.raises(psycopg.OperationalError):
            left.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            postgres_server.connect(first)
        first = postgres_server.take()
        assert contents(first) == new
        left = postgres_server.connect(first)
    left.close()
    postgres_server.drop(first)


def test_a_test_that_changes_the_tables_may_not_give_its_postgres_back(postgres_server: Postgres):
    name = postgres_server.create()
    with postgres_server.connect(name) as conn:
        conn.execute("ALTER TABLE audit ADD COLUMN more text")
    with pytest.raises(AssertionError, match="blank_postgres_url"):
        postgres_server.give_back(name)
