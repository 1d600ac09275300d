"""`stagebeam evaluate`: how many answers of a job are right."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from orchestrator.cli.terminal.nouns import single
from orchestrator.cli.terminal.output import AsJson, document

app = single()


@app.command()
def evaluate(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of a job whose input lines have an answer.")],
    as_json: AsJson = False,
) -> None:
    """Compare the answers of a job with the known ones: accuracy, 95 % interval, tokens."""
    from evaluation import score
    from evaluation.jobs import records_of
    from orchestrator.cli.terminal.client import connect

    with connect() as api, api.lines(f"/api/jobs/{job}/export", joined=True, trace=True) as lines:
        report = score(records_of(json.loads(line) for line in lines if line))
    document({"job": job, **report.to_json()}, as_json=as_json)
