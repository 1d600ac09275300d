"""A private Postgres from Debian's server programs, and a migrated database of its own for each test."""

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


@dataclass(slots=True)
class Postgres:
    """The running server. `create` makes a database, from the migrated template unless told otherwise."""

    port: int
    _numbers: Iterator[int] = field(default_factory=count)

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://app@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str) -> None:
        with psycopg.connect(f"host=127.0.0.1 port={self.port} user=app dbname=postgres", autocommit=True) as conn:
            conn.execute(statement.encode())

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
            postgres.execute("CREATE DATABASE migrated")
            schema.upgrade(postgres.url("migrated"))
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


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """URL of a migrated database that this test alone uses."""
    name = postgres_server.create()
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture
def blank_postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """URL of an empty database."""
    name = postgres_server.create("template1")
    yield postgres_server.url(name)
    postgres_server.drop(name)
