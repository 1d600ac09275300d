"""One door to the database: short transactions on SQLAlchemy Core, alike on Postgres and SQLite."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import orjson
import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from reasoning.errors import BadInput, InvariantBroken, Transient
from storage.errors import Conflict, StoreFull
from storage.portable import any_of, insert_ignore

__all__ = ["Database", "any_of", "insert_ignore", "open_database", "parse_url"]

Dialect = Literal["postgresql", "sqlite"]
Result = TypeVar("Result")

BUSY_TIMEOUT_S = 30.0
"""How long a transaction waits for a connection or for SQLite's write lock."""
CONFLICT_STATES = frozenset({"40001", "40P01", "55P03"})
"""SQLSTATEs of Postgres: serialization failure, deadlock, lock not available."""
FULL_STATES = frozenset({"53100"})
"""SQLSTATE of Postgres: disk full."""


class Database:
    """Transactions of one database. Thread-safe; open one per process and pass it on.

    Attributes:
        dialect: `postgresql` or `sqlite`.
        url: what was opened, password included; print `url.render_as_string()`, which hides it.
    """

    def __init__(self, url: URL, *, pool_size: int) -> None:
        self.url = url
        self.dialect: Dialect = "postgresql" if url.get_backend_name() == "postgresql" else "sqlite"
        self._turn = _Turn() if self.dialect == "sqlite" else None
        if self.dialect == "sqlite":
            self._writers = _sqlite_engine(url, pool_size, begin="BEGIN IMMEDIATE", query_only=False)
            self._readers = _sqlite_engine(url, pool_size, begin="BEGIN", query_only=True)
        else:
            self._writers = _postgres_engine(url, pool_size)
            self._readers = self._writers.execution_options(postgresql_readonly=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read-only transaction: on SQLite one snapshot, on Postgres read committed.

        Raises:
            Transient: the server went away or no connection came free.
        """
        with _translated(), self._readers.begin() as conn:
            yield conn

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits when the block ends well and rolls back when it raises.

        SQLite has one writer at a time: threads of this process queue for it, other processes wait for up
        to 30 seconds. A thread must not open a second write inside the first.

        Raises:
            Conflict: another transaction was in the way; nothing was written.
            StoreFull: no room left.
            Transient: the server went away or no connection came free.
        """
        with _translated():
            if self._turn is None:
                with self._writers.begin() as conn:
                    yield conn
            else:
                with self._turn, self._writers.begin() as conn:
                    yield conn

    def retry_conflicts(
        self,
        work: Callable[[Connection], Result],
        *,
        attempts: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Result:
        """Run `work` in a write transaction, again from its start after a `Conflict`.

        `work` must keep its effects inside the transaction, as it may run several times.
        """
        for attempt in range(1, attempts + 1):
            try:
                with self.write() as conn:
                    return work(conn)
            except Conflict:
                if attempt == attempts:
                    raise
                sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - spreads retries, keeps no secret
        raise InvariantBroken("retry_conflicts needs attempts >= 1")

    def close(self) -> None:
        """Give all connections back; the database may be opened again."""
        self._writers.dispose()
        self._readers.dispose()


def open_database(url: str, *, pool_size: int = 8) -> Database:
    """Open a database without connecting yet.

    Args:
        url: `postgresql://...` (psycopg is used) or `sqlite:///path`.
        pool_size: connections kept; as many again are opened under load.

    Raises:
        BadInput: the URL is not one of these.
    """
    return Database(parse_url(url), pool_size=pool_size)


def parse_url(url: str) -> URL:
    """The URL with the driver that stagebeam uses. Raises BadInput."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise _bad_url("it cannot be read as a URL") from None
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if not parsed.database or parsed.database == ":memory:":
            raise _bad_url("an in-memory SQLite database is lost between threads; name a file")
        return parsed.set(drivername="sqlite+pysqlite")
    raise _bad_url(f'"{parsed.drivername}" is not supported')


def _bad_url(why: str) -> BadInput:
    return BadInput(
        f"the database URL is refused: {why}. Use postgresql://user:password@host/name or sqlite:////path/file.db.",
        code="invalid_setting",
        field="STAGEBEAM_DATABASE_URL",
    )


def _postgres_engine(url: URL, pool_size: int) -> Engine:
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=BUSY_TIMEOUT_S,
        pool_use_lifo=True,
        json_serializer=orjson.dumps,
        json_deserializer=orjson.loads,
        connect_args={
            "application_name": "stagebeam",
            "connect_timeout": 10,
            # A plan kept from when a table was small would scan it whole for as long as the connection lives.
            "options": "-c plan_cache_mode=force_custom_plan",
        },
    )


def _sqlite_engine(url: URL, pool_size: int, *, begin: str, query_only: bool) -> Engine:
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=BUSY_TIMEOUT_S,
        pool_use_lifo=True,
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )

    def on_connect(connection: Any, _record: object) -> None:
        # Without this the driver opens transactions by itself, and only before some statements.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA query_only={'ON' if query_only else 'OFF'}")

    def on_begin(conn: Connection) -> None:
        conn.exec_driver_sql(begin)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


class _Turn:
    """A lock in front of SQLite's own: waiting threads wake at once, where SQLite polls with growing pauses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    def __enter__(self) -> None:
        if self._holder == threading.get_ident():
            raise InvariantBroken("a write transaction was opened inside another one of the same thread")
        if not self._lock.acquire(timeout=BUSY_TIMEOUT_S):
            raise Conflict(f"the write lock was held by another thread for {BUSY_TIMEOUT_S:.0f} s; try again")
        self._holder = threading.get_ident()

    def __exit__(self, *_exc: object) -> None:
        self._holder = None
        self._lock.release()


@contextmanager
def _translated() -> Iterator[None]:
    """Turn driver errors that pass by themselves into `Transient`; let all others through."""
    try:
        yield
    except DBAPIError as error:
        translated = _translate(error.orig, lost=error.connection_invalidated)
        if translated is None:
            raise
        raise translated from error
    except (psycopg.Error, sqlite3.Error) as error:  # of `storage.hot`, which speaks to the driver itself
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error
    except PoolTimeout as error:
        raise Transient(f"no database connection came free within {BUSY_TIMEOUT_S:.0f} s; try again") from error


def _translate(cause: BaseException | None, *, lost: bool = False) -> Transient | None:
    state = getattr(cause, "sqlstate", None)
    name = getattr(cause, "sqlite_errorname", "") or ""
    first = str(cause).strip().partition("\n")[0]
    if state in CONFLICT_STATES or name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Conflict(f"another transaction was in the way ({first}); nothing was written, try again")
    if state in FULL_STATES or name == "SQLITE_FULL":
        return StoreFull(f"the database has no room left ({first}); free some space, work goes on by itself")
    if lost or _unreachable(cause):
        return Transient(
            f"the database cannot be reached ({first}); see that it runs and that STAGEBEAM_DATABASE_URL is right"
        )
    return None


def _unreachable(cause: BaseException | None) -> bool:
    """Whether a connection could not be made: psycopg gives such errors no SQLSTATE, or one of class 08 or 57P."""
    if type(cause).__module__.partition(".")[0] != "psycopg" or type(cause).__name__ == "ProgrammingError":
        return False
    state = getattr(cause, "sqlstate", None)
    return type(cause).__name__ == "OperationalError" if state is None else state.startswith(("08", "57P"))
