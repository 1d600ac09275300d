"""`stagebeam key`: API keys. Works on the database itself, as the first key must come from somewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.terminal.nouns import verbs
from orchestrator.cli.terminal.output import AsJson, document, listing, say

if TYPE_CHECKING:
    from storage.database import Database

app = verbs("Make, list and revoke API keys (on the database, not over HTTP).")

Project = Annotated[str, typer.Option(help="Project that the key belongs to.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    role: Annotated[str, typer.Option(help="viewer, operator or admin.")] = "operator",
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Make a key and show it once. The first key ends free access on loopback."""
    from storage import access

    with _database() as db, db.write() as conn:
        key = access.create_key(conn, project_id=project, name=name, role=role, now=time.time())
        access.note(conn, project_id=project, actor="cli", action="key.create", subject=key.id, now=time.time())
    say("this is the only time the token is shown; clients send it as STAGEBEAM_API_KEY")
    document({"id": key.id, "token": key.token}, as_json=as_json)


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List keys without their tokens."""
    from storage import access

    with _database() as db, db.read() as conn:
        rows = [dict(row._mapping) for row in access.list_keys(conn)]  # noqa: SLF001 - SQLAlchemy's public spelling
    listing(rows, ("id", "project_id", "name", "role", "hint", "last_used_at", "revoked_at"), as_json=as_json)


@app.command()
def revoke(key_id: str, as_json: AsJson = False) -> None:
    """End a key at once."""
    from orchestrator.cli.terminal.exits import CommandError, Exit
    from storage import access

    with _database() as db, db.write() as conn:
        if not access.revoke_key(conn, key_id, time.time()):
            message = f"there is no key {key_id} that could be revoked; `stagebeam key list` shows them"
            raise CommandError(message, exit_code=Exit.NOT_FOUND, code="not_found")
        access.note(conn, project_id=None, actor="cli", action="key.revoke", subject=key_id, now=time.time())
    document({"id": key_id, "revoked": True}, as_json=as_json)


@contextmanager
def _database() -> Iterator[Database]:
    from orchestrator.cli.terminal.door import settings_with
    from storage import schema
    from storage.database import open_database

    url = settings_with().effective_database_url
    schema.check(url)
    db = open_database(url, pool_size=1)
    try:
        yield db
    finally:
        db.close()
