"""`stagebeam api`: the service behind the JSON API and the pages."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.terminal.nouns import single

app = single()

Host = Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on.  [default: 8000]")]


@app.command()
def api(host: Host = None, port: Port = None) -> None:
    """Serve the JSON API until told to stop."""
    from orchestrator.api.serve import serve
    from orchestrator.cli.terminal.door import service_settings

    serve(service_settings("api", host=host, port=port))
