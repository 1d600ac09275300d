"""A private Postgres from Debian's server programs, and a migrated database for each test that no other uses then."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
import pytest

from storage import schema
from tests.services.processes import free_port, missing, server, wrapped

DURABLE = ["shared_buffers=64MB", "max_connections=200"]
FAST = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", *DURABLE]


EMPTY = """
DO $$
DECLARE
    ours oid[] := ARRAY(SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r');
    one oid;
BEGIN
    IF EXISTS (SELECT FROM unnest(ours) its WHERE pg_relation_size(its) > 2 ^ 18) THEN
        EXECUTE (SELECT 'TRUNCATE ' || string_agg(its::regclass::text, ', ') FROM unnest(ours) its);
    ELSE
        SET LOCAL session_replication_role = replica;
        FOREACH one IN ARRAY ours LOOP
            EXECUTE 'DELETE FROM ' || one::regclass;
        END LOOP;
    END IF;
    PERFORM setval(sequencename::regclass, 1, false) FROM pg_sequences WHERE last_value IS NOT NULL;
END $$
"""
"""Takes away what a test wrote. To delete a few rows from each table is a fraction of the work of truncating it."""
SCHEMA = """
SELECT md5(string_agg(concat(relname, attname, atttypid, attnotnull), ' ' ORDER BY relname, attnum))
FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid WHERE relnamespace = 'public'::regnamespace
"""


@dataclass(slots=True)
class Postgres:
    """The running server. `create` makes a database, from the migrated template unless told otherwise."""

    port: int
    _numbers: Iterator[int] = field(default_factory=count)
    _idle: list[str] = field(default_factory=list)
    _schema: str = ""
    _rows: dict[str, str] = field(default_factory=dict)
    """What the migrated template holds: rows as JSON by table."""

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://app@127.0.0.1:{self.port}/{name}"

    def connect(self, name: str, *, autocommit: bool = False) -> psycopg.Connection:
        where = f"host=127.0.0.1 port={self.port} user=app dbname={name}"
        return psycopg.connect(where, autocommit=autocommit)

    def execute(self, statement: str) -> None:
        with self.connect("postgres", autocommit=True) as conn:
            conn.execute(statement.encode())

    def migrate(self) -> None:
        """Make the template."""
        self.execute("CREATE DATABASE migrated")
        schema.upgrade(self.url("migrated"))
        with self.connect("migrated") as conn:
            self._schema = _value(conn, SCHEMA)
            for (table,) in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
                self._rows[table] = _value(conn, f"SELECT coalesce(json_agg({table}), '[]')::text FROM {table}")

    def take(self) -> str:
        """A database as `create` makes it: one that was given back, if there is one, as to make one takes longer."""
        return self._idle.pop() if self._idle else self.create()

    def give_back(self, name: str) -> None:
        """Empty a database. It gets another name, so that what is left of its test finds it gone."""
        fresh = f"t{next(self._numbers)}"
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        self.execute(f"ALTER DATABASE {name} RENAME TO {fresh}")
        with self.connect(fresh) as conn:
            assert _value(conn, SCHEMA) == self._schema, "a test has changed the tables; it needs blank_postgres_url"
            conn.execute(EMPTY)
            for table, rows in self._rows.items():
                if rows != "[]":
                    known = f"SELECT * FROM json_populate_recordset(NULL::{table}, %s)"
                    conn.execute(f"INSERT INTO {table} {known}".encode(), (rows,))
        self._idle.append(fresh)

    def create(self, template: str = "migrated") -> str:
        name = f"t{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One server for the session."""
    with private_postgres() as postgres:
        yield postgres


@contextmanager
def private_postgres(settings: Sequence[str] = FAST) -> Iterator[Postgres]:
    """A server on a free port until the block ends, with the template database `migrated`.

    What it has confirmed outlives a crash of the machine only with `DURABLE` settings, as measurements need it.
    """
    programs = _programs()
    base = Path(tempfile.mkdtemp(prefix="stagebeam-pg-"))
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        account = pwd.getpwnam(user)
        os.chown(base, account.pw_uid, account.pw_gid)
    port = free_port()
    subprocess.run(
        [*wrapped(user), programs / "initdb", "-D", base / "d", "-U", "app", "-A", "trust", "--no-sync", "-E", "UTF8"],
        check=True,
        cwd=base,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        stdout=subprocess.DEVNULL,
    )
    command = [*wrapped(user), str(programs / "postgres"), "-D", str(base / "d"), "-h", "127.0.0.1"]
    command += ["-p", str(port), "-k", str(base), *(word for setting in settings for word in ("-c", setting))]
    postgres = Postgres(port)

    def ready() -> bool:
        postgres.execute("SELECT 1")
        return True

    try:
        with server(command, log=base / "log", ready=ready, cwd=base):
            postgres.migrate()
            yield postgres
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _programs() -> Path:
    """The folder of initdb and postgres."""
    if on_path := shutil.which("initdb"):
        return Path(on_path).parent
    if shutil.which("pg_config"):
        folder = Path(subprocess.check_output(["pg_config", "--bindir"], text=True).strip())
        if (folder / "initdb").exists():
            return folder
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    missing("postgresql")
    raise AssertionError


def _value(conn: psycopg.Connection, query: str) -> str:
    found = conn.execute(query.encode()).fetchone()
    assert found is not None
    return str(found[0])


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """URL of a migrated database with nothing in it, which no other test uses meanwhile."""
    name = postgres_server.take()
    yield postgres_server.url(name)
    postgres_server.give_back(name)


@pytest.fixture
def blank_postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """URL of an empty database."""
    name = postgres_server.create("template1")
    yield postgres_server.url(name)
    postgres_server.drop(name)
