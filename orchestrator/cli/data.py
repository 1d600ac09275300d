"""`stagebeam data`: structured training rows, written by a teacher or sampled from a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from orchestrator.cli.terminal.nouns import verbs
from orchestrator.cli.terminal.output import AsJson, document, say

if TYPE_CHECKING:
    from reasoning.policy import PromptStyle

app = verbs("Structured training rows in the LLaVA-CoT-100k format.")

Questions = Annotated[Path, typer.Argument(help="A questions.jsonl whose lines have an answer.")]


@app.command()
def generate(  # noqa: PLR0913, PLR0917 - one parameter per option
    questions: Questions,
    out: Annotated[Path, typer.Option(help="File of rows; errors and costs are written beside it.")],
    teacher: Annotated[
        str, typer.Option(help="program (for scenes), or an engine such as openai:BASE_URL#MODEL.")
    ] = "program",
    attempts: Annotated[int, typer.Option(min=1, help="Tries per row.")] = 3,
    parallel: Annotated[int, typer.Option(min=1, help="Rows in hand at once.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens that the teacher may write per row.")] = 2048,
    prompt_price: Annotated[float, typer.Option(min=0, help="Price of a million prompt tokens.")] = 0.0,
    generated_price: Annotated[float, typer.Option(min=0, help="Price of a million generated tokens.")] = 0.0,
    retry_failed: Annotated[bool, typer.Option(help="Ask again for rows that failed before.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have a teacher explain questions whose answer is known; goes on where an earlier run stopped."""
    from training.data.generate import Terms
    from training.data.generate import generate as run
    from training.data.teachers import open_teacher

    terms = Terms(
        attempts=attempts,
        parallel=parallel,
        prompt_price=prompt_price,
        generated_price=generated_price,
        retry_failed=retry_failed,
    )
    with open_teacher(teacher, questions, max_tokens=max_tokens) as chosen:
        outcome = run(questions, out, chosen, terms, progress=_report)
    document(outcome.to_json(), as_json=as_json)


@app.command()
def check(
    rows: Annotated[list[Path], typer.Argument(help="Files of rows.")],
    images: Annotated[Path, typer.Option(help="Folder that image paths are relative to.")],
    as_json: AsJson = False,
) -> None:
    """Check rows, such as the public LLaVA-CoT-100k: every problem by file, line and field."""
    from training.data.conversations import read

    found = read(rows, images)
    rounds = sum(len(row.rounds) for row in found)
    document({"rows": len(found), "rounds": rounds}, as_json=as_json)


@app.command()
def reject(  # noqa: PLR0913, PLR0917 - one parameter per option
    questions: Questions,
    out: Annotated[Path, typer.Option(help="Folder for sft.jsonl and judge.jsonl.")],
    model: Annotated[str, typer.Option(help="What is sampled: demo, a folder, a hub id or an engine.")] = "demo",
    candidates: Annotated[int, typer.Option(min=2, help="Candidates per stage.")] = 4,
    ways: Annotated[int, typer.Option(min=1, help="Conclusions drawn from each candidate.")] = 2,
    temperature: Annotated[float, typer.Option(min=0, help="Of the sampling.")] = 0.9,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens at most per draw.")] = 2048,
    parallel: Annotated[int, typer.Option(min=1, help="Questions in hand at once.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same samples.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Sample a model and sort what it writes by the known answers: rows for the policy and pairs for the judge."""
    from training.data.reject import Draws
    from training.data.reject import reject as run
    from workers.engine.protocol import Sampling
    from workers.engine.registry import open_engine

    engine = open_engine(model)
    try:
        draws = Draws(
            candidates=candidates,
            ways=ways,
            parallel=parallel,
            seed=seed,
            prompts=cast("PromptStyle", engine.info.prompts),
        )
        sampling = Sampling(temperature=temperature, top_p=0.95, top_k=0, max_tokens=max_tokens)
        harvest = run(questions, out, engine, sampling, draws, progress=_report)
    finally:
        engine.close()
    document(harvest.to_json(), as_json=as_json)


def _report(done: int, rows: int) -> None:
    if done == rows or done % 50 == 0:
        say(f"{done} of {rows} rows")
