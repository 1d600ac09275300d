"""`stagebeam train`: supervised fine-tuning as a TOML file says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.terminal.nouns import single
from orchestrator.cli.terminal.output import AsJson, DryRun, document, say

app = single()


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="TOML file; training/configs/ holds examples.")],
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint, if there is one.")] = True,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on structured rows; configuration, rows and images are checked before the first step."""
    from training import check, run

    if dry_run:
        document(check(config), as_json=as_json)
        return
    folder = run(config, resume=resume, progress=_report)
    document({"model": str(folder)}, as_json=as_json)


def _report(step: int, steps: int, loss: float | None) -> None:
    say(f"step {step} of {steps}" + ("" if loss is None else f"  loss {loss:.4f}"))
