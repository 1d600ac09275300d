"""The schema of a database: brought up to date, asked for its revision, compared with the tables."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from reasoning.errors import BadInput
from storage.database import open_database, parse_url
from storage.tables import Base

UPGRADE_LOCK = 7_306_086_911
"""Key of the Postgres advisory lock that lets one process upgrade at a time."""


def upgrade(url: str, to: str = "head") -> str:
    """Bring the database to a revision, the newest unless told, and return that; nothing happens when it is there.

    Everything happens in one transaction, and a second process that starts meanwhile waits and finds it done.

    Raises:
        BadInput: the database is of a newer stagebeam, or the URL is refused.
        Transient: the database cannot be reached.
    """
    with _locked(url) as conn:
        _refuse_newer(conn)
        command.upgrade(_config(connection=conn), to)
    return newest() if to == "head" else to


def current(url: str) -> str | None:
    """The revision of the database; None for a blank one. Raises as `upgrade` does."""
    with _connected(url) as conn:
        return MigrationContext.configure(conn).get_current_revision()


def exists(url: str) -> bool:
    """Whether there is a database to look into: looking makes the file of SQLite. Raises BadInput."""
    parsed = parse_url(url)
    return parsed.get_backend_name() != "sqlite" or Path(parsed.database or "").is_file()


def newest() -> str:
    """The newest revision that this program knows."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "the package has no revisions"  # noqa: S101 - a broken installation
    return head


def check(url: str) -> None:
    """Refuse to work on a database of another revision than this program's.

    Raises:
        BadInput: it is blank, older or newer; the message says what to run.
    """
    found, wanted = current(url) if exists(url) else None, newest()
    if found == wanted:
        return
    if found is not None:
        with _connected(url) as conn:
            _refuse_newer(conn)
    state = "is blank" if found is None else f"is at revision {found}, this program needs {wanted}"
    shown = parse_url(url).render_as_string(hide_password=True)
    raise BadInput(f"the database {shown} {state}; run `stagebeam db upgrade`", code="schema_outdated")


def differences(url: str) -> list[Any]:
    """What sets the database apart from `storage.tables`; empty when the revisions say all that the tables say."""
    with _connected(url) as conn:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(conn, opts=options), Base.metadata))


def script(url: str) -> str:
    """The SQL that brings a blank database of this kind up to date, for those who run such things by hand."""
    out = io.StringIO()
    backend = parse_url(url).get_backend_name()
    offline = {"dialect_name": backend, "as_sql": True, "output_buffer": out, "literal_binds": True}
    command.upgrade(_config(offline=offline), "head", sql=True)
    return out.getvalue()


def _config(**attributes: object) -> Config:
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", "storage:migrations")
    config.attributes.update(attributes)
    return config


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    database = open_database(url, pool_size=1)
    try:
        with database.read() as conn:
            yield conn
    finally:
        database.close()


@contextmanager
def _locked(url: str) -> Iterator[Connection]:
    """A write transaction that no other upgrade runs beside; SQLite has one writer at a time anyway."""
    database = open_database(url, pool_size=1)
    try:
        with database.write() as conn:
            if database.dialect == "postgresql":
                conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
            yield conn
    finally:
        database.close()


def _refuse_newer(conn: Connection) -> None:
    found = MigrationContext.configure(conn).get_current_revision()
    known = {revision.revision for revision in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise BadInput(
            f"the database is at revision {found}, which this program does not know: a newer stagebeam upgraded it. "
            "Install that version, or restore a backup.",
            code="schema_newer",
        )
