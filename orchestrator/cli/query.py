"""`stagebeam query`: one question, its answer, and how it was thought through."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from orchestrator.cli.terminal.nouns import verbs
from orchestrator.cli.terminal.output import AsJson, document, write

app = verbs("One question: its answer, and how it was thought through.")

Name = Annotated[str, typer.Argument(metavar="QUERY", help="A query id, or JOB/CUSTOM_ID.")]


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show the answer and where the search stands. On a terminal long texts are cut; --json has all of them."""
    document(_get(name, ""), as_json=as_json)


@app.command()
def trace(name: Name, as_json: AsJson = False) -> None:
    """Show the stages with their candidates and verdicts as a tree. Long texts are cut; --json has all of them."""
    found = _get(name, "/trace")
    if as_json:
        document(found, as_json=True)
        return
    from orchestrator.cli.terminal.fit import columns
    from orchestrator.cli.terminal.tree import trace_lines

    for line in trace_lines(found, columns()):
        write(line)


def _get(name: str, suffix: str) -> dict[str, Any]:
    from orchestrator.cli.terminal.client import connect

    job, slash, custom_id = name.partition("/")
    if not slash and not name.isdecimal():
        from orchestrator.cli.terminal.exits import CommandError, Exit

        message = f'"{name}" names no query; write its number, or JOB/CUSTOM_ID'
        raise CommandError(message, exit_code=Exit.BAD_INPUT, code="invalid_value")
    with connect() as api:
        if not slash:
            return dict(api.get(f"/api/queries/{quote(name, safe='')}{suffix}"))
        found = api.get(f"/api/jobs/{quote(job, safe='')}/queries", custom_id=custom_id)["data"]
        if not found:
            from orchestrator.cli.terminal.exits import CommandError, Exit

            message = f'job {job} has no query "{custom_id}"; `stagebeam job results {job}` lists those that ended'
            raise CommandError(message, exit_code=Exit.NOT_FOUND, code="not_found")
        return dict(api.get(f"/api/queries/{found[0]['id']}{suffix}"))
