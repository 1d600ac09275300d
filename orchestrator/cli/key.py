"""`stagebeam key`: API keys. Works on the database itself, as the first key must come from somewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.terminal.database import DataFolder, open_own
from orchestrator.cli.terminal.nouns import verbs
from orchestrator.cli.terminal.output import AsJson, DryRun, document, listing, say

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from storage.access import NewKey

app = verbs("Make, list and revoke API keys (on the database, not over HTTP).")

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, as `key list` shows it.")]
Project = Annotated[str, typer.Option(help="Project that the key belongs to.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    role: Annotated[str, typer.Option(help="viewer, operator or admin.")] = "operator",
    project: Project = "default",
    data: DataFolder = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it once. The first key ends free access on loopback."""
    from orchestrator.api.rehearse import rehearsed
    from storage import access

    def make(conn: Connection) -> NewKey:
        key = access.create_key(conn, project_id=project, name=name, role=role, now=time.time())
        access.note(conn, project_id=project, actor="cli", action="key.create", subject=key.id, now=time.time())
        return key

    with open_own(data) as db:
        key = rehearsed(db, make, dry_run=dry_run)
    if dry_run:
        document({"name": name, "role": role, "project_id": project}, as_json=as_json)
        return
    say("this is the only time the token is shown; clients send it as STAGEBEAM_API_KEY")
    document({"id": key.id, "token": key.token}, as_json=as_json)


@app.command("list")
def list_keys(data: DataFolder = None, as_json: AsJson = False) -> None:
    """List keys without their tokens."""
    from storage import access

    with open_own(data) as db, db.read() as conn:
        rows = [dict(row._mapping) for row in access.list_keys(conn)]  # noqa: SLF001 - SQLAlchemy's public spelling
    listing(rows, ("id", "project_id", "name", "role", "hint", "last_used_at", "revoked_at"), as_json=as_json)


@app.command()
def revoke(key_id: KeyId, data: DataFolder = None, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """End a key at once."""
    from orchestrator.api.rehearse import rehearsed
    from orchestrator.cli.terminal.exits import CommandError, Exit
    from storage import access

    def end(conn: Connection) -> None:
        if not access.revoke_key(conn, key_id, time.time()):
            message = f"there is no key {key_id} that could be revoked; `stagebeam key list` shows them"
            raise CommandError(message, exit_code=Exit.NOT_FOUND, code="not_found")
        access.note(conn, project_id=None, actor="cli", action="key.revoke", subject=key_id, now=time.time())

    with open_own(data) as db:
        rehearsed(db, end, dry_run=dry_run)
    document({"id": key_id, "revoked": not dry_run}, as_json=as_json)
