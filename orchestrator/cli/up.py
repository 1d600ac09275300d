"""`stagebeam up`: everything in one place, until it is told to stop."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.terminal.nouns import single

if TYPE_CHECKING:
    from orchestrator.embedded.stack import Stack

app = single()


@app.command()
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder that everything is kept in.  [default: data]")] = None,
    model: Annotated[str | None, typer.Option(help="demo, scripted, a folder or a hub id.  [default: demo]")] = None,
) -> None:
    """Start broker, worker, orchestrator and API as one; Ctrl-C stops them, the next start goes on."""
    from orchestrator.cli.terminal.door import service_settings
    from orchestrator.cli.terminal.output import say
    from orchestrator.cli.terminal.signals import until_told_to_stop
    from orchestrator.embedded.stack import free_port, running

    chosen = free_port() if port == 0 else port
    settings = service_settings("up", host=host, port=chosen, data_dir=data, model=model)
    with until_told_to_stop() as told, running(settings) as stack:
        stack.wait_ready(told)
        if not told.is_set():
            say(f"stagebeam is ready at {stack.url} (data in {settings.data_dir.resolve()}; Ctrl-C stops it)")
            _watch(stack, told)
        say("stopping")


def _watch(stack: Stack, told: threading.Event) -> None:
    while not told.wait(0.5):
        stack.check()
