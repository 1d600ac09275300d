"""`stagebeam orchestrator`: the service that dispatches, advances, finalizes and reconciles."""

from __future__ import annotations

from orchestrator.cli.terminal.nouns import single

app = single()


@app.command()
def orchestrator() -> None:
    """Run the orchestrator until it is told to stop."""
    from orchestrator.cli.terminal.door import service_settings
    from orchestrator.service import run_orchestrator

    run_orchestrator(service_settings("orchestrator"))
