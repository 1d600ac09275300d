"""`stagebeam project`: projects and their limits. Works on the database itself, as keys do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.terminal.database import DataFolder, open_own
from orchestrator.cli.terminal.nouns import verbs
from orchestrator.cli.terminal.output import AsJson, DryRun, document, listing

if TYPE_CHECKING:
    from sqlalchemy import Connection

app = verbs("Make and list projects, set their limits (on the database, not over HTTP).")

COLUMNS = ("id", "name", "limits")


@app.command()
def create(
    project_id: Annotated[str, typer.Argument(metavar="PROJECT", help="Id of the project: short and plain.")],
    name: Annotated[str | None, typer.Option(help="What it is for.  [default: its id]")] = None,
    data: DataFolder = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a project; keys, jobs and files belong to one."""
    from orchestrator.api.rehearse import rehearsed
    from orchestrator.cli.terminal.exits import CommandError, Exit
    from storage import access

    if not project_id.replace("-", "").replace("_", "").isalnum() or len(project_id) > 60:
        message = "a project id has 1 to 60 letters, digits, - and _"
        raise CommandError(message, exit_code=Exit.BAD_INPUT, code="invalid_value")

    def make(conn: Connection) -> None:
        if not access.create_project(conn, project_id, name or project_id, time.time()):
            raise CommandError(f"there is a project {project_id} already", exit_code=Exit.REFUSED, code="conflict")
        access.note(
            conn, project_id=project_id, actor="cli", action="project.create", subject=project_id, now=time.time()
        )

    with open_own(data) as db:
        rehearsed(db, make, dry_run=dry_run)
    document({"id": project_id, "name": name or project_id}, as_json=as_json)


@app.command("list")
def list_projects(data: DataFolder = None, as_json: AsJson = False) -> None:
    """List projects and their limits."""
    from storage import access

    with open_own(data) as db, db.read() as conn:
        rows = [{"id": row.id, "name": row.name, "limits": row.limits or {}} for row in access.list_projects(conn)]
    listing(rows, COLUMNS, as_json=as_json)


@app.command()
def limit(
    project_id: Annotated[str, typer.Argument(metavar="PROJECT", help="Id of the project.")],
    limits: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=NUMBER...",
            help="queries_in_flight, queued_tokens, storage_bytes, requests_per_minute; NAME= takes one away.",
        ),
    ] = None,
    data: DataFolder = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Set limits of a project; those not named stay."""
    from orchestrator.api.rehearse import rehearsed
    from orchestrator.cli.terminal.exits import CommandError, Exit
    from orchestrator.limits import checked_limits
    from storage import access

    changed = dict(_pair(text) for text in limits or ())

    def change(conn: Connection) -> dict[str, int]:
        row = access.get_project(conn, project_id)
        if row is None:
            message = f"there is no project {project_id}; `stagebeam project list` shows them"
            raise CommandError(message, exit_code=Exit.NOT_FOUND, code="not_found")
        wanted = checked_limits({**(row.limits or {}), **changed})
        access.set_limits(conn, project_id, wanted)
        access.note(
            conn,
            project_id=project_id,
            actor="cli",
            action="project.limit",
            subject=project_id,
            now=time.time(),
            details=wanted,
        )
        return wanted

    with open_own(data) as db:
        wanted = rehearsed(db, change, dry_run=dry_run)
    document({"id": project_id, "limits": wanted}, as_json=as_json)


def _pair(text: str) -> tuple[str, int | None]:
    from orchestrator.cli.terminal.exits import CommandError, Exit

    name, equals, value = text.partition("=")
    if not equals or (value and not value.isdigit()):
        message = f'"{text}" is no limit; write NAME=NUMBER, such as requests_per_minute=600'
        raise CommandError(message, exit_code=Exit.BAD_INPUT, code="invalid_value")
    return name, int(value) if value else None
