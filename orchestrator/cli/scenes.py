"""`stagebeam scenes`: questions about rendered scenes, with images and exact answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from orchestrator.cli.terminal.nouns import single
from orchestrator.cli.terminal.output import AsJson, document

if TYPE_CHECKING:
    from training.scenes.world import Level

app = single()


@app.command()
def scenes(
    out: Annotated[Path, typer.Option(help="Folder that is written to.")],
    count: Annotated[int, typer.Option(help="How many questions.")] = 100,
    seed: Annotated[int, typer.Option(help="The same seed makes the same questions everywhere.")] = 0,
    level: Annotated[str, typer.Option(help="easy, medium or hard: how many things a scene has.")] = "medium",
    as_json: AsJson = False,
) -> None:
    """Write images, questions.jsonl (ready for `stagebeam job submit`) and questions.tsv (VLMEvalKit's form)."""
    from training.scenes import write

    path = write(seed, count, cast("Level", level), out)
    document({"questions": str(path), "count": count, "level": level, "seed": seed}, as_json=as_json)
