"""`stagebeam dataset`: named sources of questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from orchestrator.cli.terminal.nouns import verbs
from orchestrator.cli.terminal.output import AsJson, DryRun, document, listing

app = verbs("Name sources of questions, so that schedules can run them.")

Name = Annotated[str, typer.Argument(metavar="DATASET", help="Name of the dataset.")]


@app.command()
def create(  # noqa: PLR0913, PLR0917 - a parameter for each flag
    name: Name,
    source: Annotated[
        str,
        typer.Argument(
            help="A file, folder or glob on the server's machine, object:PREFIX of its store, or sql:CONNECTION."
        ),
    ],
    question: Annotated[str | None, typer.Option(help="One question for every row; {column} is filled in.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="PART=COLUMN, such as question=query; may be repeated.")
    ] = None,
    identity: Annotated[list[str] | None, typer.Option(help="Column that tells rows apart; may be repeated.")] = None,
    query: Annotated[str | None, typer.Option(help="The SELECT of an SQL source.")] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="jsonl, csv, tsv, vlmevalkit, parquet, huggingface or images.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a Hugging Face folder.")] = None,
    model: Annotated[str | None, typer.Option(help="Model that answers.  [default: that of the server]")] = None,
    strategy: Annotated[str | None, typer.Option(help="single or stage_beam.")] = None,
    candidates: Annotated[int | None, typer.Option(help="Candidates per stage.")] = None,
    policy: Annotated[str | None, typer.Option(help="Further policy fields as a JSON object.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Name a dataset, or change the one of that name."""
    from orchestrator.cli.terminal.client import connect
    from orchestrator.cli.terminal.flags import given, json_object, pairs

    body: dict[str, Any] = {
        "source": given(**_source(source), format=file_format, split=split, query=query),
        "columns": pairs("--column", column),
        "question": question,
        "identity": identity or [],
        "model": model or "",
        "policy": json_object("--policy", policy) | given(strategy=strategy, candidates=candidates),
    }
    with connect() as api:
        found = api.put(_path(name), body, dry_run=dry_run or None)
    if not as_json:
        found["changes"] = [change for change in found["changes"] if change["before"] is not None]
    document(found, as_json=as_json)


@app.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """List named datasets."""
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        columns = ("name", "source.kind", "source.address", "question", "model", "managed_by")
        listing(api.pages("/api/datasets"), columns, as_json=as_json)


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show a dataset and the schedules that use it."""
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        document(api.get(_path(name)), as_json=as_json)


@app.command()
def preview(
    name: Name,
    rows: Annotated[int, typer.Option(min=1, max=20, help="Rows to show.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show the first rows as they would be asked, and what was understood of the columns."""
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        found = api.get(f"{_path(name)}/preview", rows=rows)
    if as_json:
        document(found, as_json=True)
        return
    document({"columns": found["columns"], "notes": found["notes"]}, as_json=False)
    listing(found["rows"], ("custom_id", "question", "images", "answer", "error.message"), as_json=False)


@app.command()
def delete(name: Name, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Remove a dataset that no schedule uses."""
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        document(api.delete(_path(name), dry_run=dry_run or None), as_json=as_json)


def _source(text: str) -> dict[str, str]:
    if text.startswith("object:"):
        return {"kind": "prefix", "address": text.removeprefix("object:")}
    if text.startswith("sql:"):
        return {"kind": "sql", "address": text.removeprefix("sql:")}
    path = str(Path(text).absolute())
    return {"kind": "glob" if any(sign in text for sign in "*?[") else "path", "address": path}


def _path(name: str) -> str:
    return f"/api/datasets/{quote(name, safe='')}"
