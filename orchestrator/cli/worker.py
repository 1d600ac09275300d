"""`stagebeam worker`: run one, list them, drain one."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.terminal.nouns import single
from orchestrator.cli.terminal.output import AsJson, DryRun, document, listing

app = single("Run a worker; list and drain the running ones.", with_verbs=True)

Model = Annotated[
    str | None, typer.Option(help="demo, scripted, a folder, a hub id or openai:BASE_URL#MODEL.  [default: demo]")
]


WorkerId = Annotated[str, typer.Argument(metavar="WORKER", help="Id of the worker, as `worker list` shows it.")]


@app.callback()
def worker(
    ctx: typer.Context,
    model: Model = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    name: Annotated[str | None, typer.Option(help="Name shown in lists.")] = None,
) -> None:
    """Run a worker until it is told to stop, or with a verb: list and drain the running ones."""
    if ctx.invoked_subcommand is not None:
        return
    from orchestrator.cli.terminal.door import service_settings
    from workers.run import run_worker

    run_worker(service_settings("worker", model=model, device=device, worker_name=name))


@app.command("list")
def list_workers(as_json: AsJson = False) -> None:
    """List the workers that are alive or were lost lately."""
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        workers = api.pages("/api/workers")
        listing(
            # The calls themselves are for programs; people see how many there are.
            workers if as_json else ({**worker, "in_hand": len(worker["in_hand"])} for worker in workers),
            ("id", "state", "model", "engine.kind", "engine.device", "slots", "in_hand", "beat_age_s"),
            as_json=as_json,
        )


@app.command()
def drain(
    worker_id: WorkerId,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let a worker finish what it has in hand and take nothing more."""
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        document(api.post(f"/api/workers/{worker_id}/drain", dry_run=dry_run), as_json=as_json)
