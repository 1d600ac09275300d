"""`stagebeam demo`: the main job on the embedded stack, end to end, on images made here."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.terminal.nouns import single
from orchestrator.cli.terminal.output import AsJson, say, write

if TYPE_CHECKING:
    from orchestrator.cli.terminal.client import Api
    from storage.settings import Settings

app = single()

SEED = 2026
"""Of the scenes; those of the split `test` were never seen in training."""
LONGEST_S = 150.0
"""The job runs out of time after this, so that the demo ends within three minutes on two slow cores."""


@app.command()
def demo(
    count: Annotated[int, typer.Option(min=1, max=1000, help="Questions to answer.")] = 12,
    candidates: Annotated[int, typer.Option(min=1, max=16, help="Candidates per stage.")] = 4,
    model: Annotated[str | None, typer.Option(help="What answers.  [default: the trained demo model]")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the demo.  [default: data/demo]")] = None,
    as_json: AsJson = False,
) -> None:
    """Answer questions about pictures of simple scenes by stage-level beam search, and show how it went."""
    from orchestrator.cli.terminal.client import Api
    from orchestrator.cli.terminal.watch import exit_code
    from orchestrator.embedded.stack import running
    from training.scenes import write as write_scenes

    settings = _settings(model, data)
    questions = write_scenes(SEED, count, "medium", settings.data_dir / "input")
    say(f"{count} questions about rendered scenes in {questions}")
    say(_about(settings.model))
    started = time.monotonic()
    with running(settings, logs=settings.data_dir / "logs") as stack:
        stack.wait_ready()
        say(f"broker, worker, orchestrator and API run ({time.monotonic() - started:.1f} s)")
        with Api(stack.url) as api:
            job, lines = _run(api, questions, candidates, settings)
    _show(job, lines, questions, settings, as_json=as_json)
    raise typer.Exit(exit_code(job))


def _settings(model: str | None, data: Path | None) -> Settings:
    """The embedded stack of its own folder, whatever else the environment names."""
    from orchestrator.cli.terminal.door import service_settings, settings_with
    from orchestrator.embedded.stack import free_port

    chosen = model or _best_model()
    folder = (data or settings_with().data_dir / "demo").resolve()
    stores = {"database_url": "", "broker_url": "", "object_store": ""}
    return service_settings("demo", data_dir=folder, model=chosen, host="127.0.0.1", port=free_port(), **stores)


def _best_model() -> str:
    from reasoning.errors import BadInput
    from workers.engine.registry import demo_folder

    try:
        demo_folder()
    except BadInput:  # this installation has no weights
        return "scripted"
    return "demo"


def _about(model: str) -> str:
    if model == "demo":
        return "model: the demo model of this package, trained on other scenes of the same kind"
    if model.startswith("scripted"):
        return "model: none. The scripted engine writes made-up text; it shows the search, its answers mean nothing"
    return f"model: {model}"


def _run(api: Api, questions: Path, candidates: int, settings: Settings) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from orchestrator.cli.terminal.fetch import write_lines
    from orchestrator.cli.terminal.submission import send_file
    from orchestrator.cli.terminal.watch import watch

    body = {
        "file_id": send_file(api, str(questions), ()),
        "name": "demo",
        "policy": {"candidates": candidates},
        "completion_window_s": LONGEST_S,
    }
    job = watch(api, api.post("/api/jobs", body)["id"])
    results = settings.data_dir / "results.jsonl"
    with api.lines(f"/api/jobs/{job['id']}/results", trace=True) as found:
        write_lines(found, results)
    with results.open(encoding="utf-8") as lines:
        return job, [json.loads(line) for line in lines]


def _show(
    job: dict[str, Any], lines: list[dict[str, Any]], questions: Path, settings: Settings, *, as_json: bool
) -> None:
    from orchestrator.cli.terminal.output import document

    with questions.open(encoding="utf-8") as asked:
        known = {line["custom_id"]: line for line in map(json.loads, asked)}
    results = settings.data_dir / "results.jsonl"
    if as_json:
        document({**job, "results": str(results)}, as_json=True)
        return
    for line in lines:
        write(_answer_line(line, known[line["custom_id"]]))
    write("")
    for row in _summary(job):
        write(row)
    write(f"results with every candidate and verdict: {results}")
    write(f"to look around: stagebeam up --data {settings.data_dir} --model {settings.model}")


def _answer_line(line: dict[str, Any], asked: dict[str, Any]) -> str:
    from orchestrator.cli.terminal.safe import one_line

    said = line["answer"] if line["answer"] is not None else f"no answer ({line['error']['code']})"
    return (
        f"{asked['images'][0]}  {one_line(asked['question'], 70)}  -> {one_line(said, 40)}  (known: {asked['answer']})"
    )


def _summary(job: dict[str, Any]) -> list[str]:
    counts, usage = job["counts"], job["usage"]
    answered = counts["done"] + counts["degraded"]
    seconds = (job["ended_at"] or time.time()) - (job["started_at"] or job["created_at"])
    generated = usage["kept"] + usage["discarded"] + usage["judged"]
    others = "".join(f", {counts[state]} {state}" for state in ("degraded", "failed", "expired") if counts[state])
    return [
        f"queries     {answered} of {counts['total']} answered{others}",
        f"candidates  {usage['candidates']}, compared in {usage['verdicts']} verdicts",
        f"tokens      {generated} generated, {usage['kept']} of them kept, {usage['judged']} by the judge",
        f"prompts     {usage['prompt_tokens']} tokens, {usage['cached_tokens']} of them from a cache",
        f"time        {seconds:.1f} s, {seconds / max(1, counts['total']):.2f} s per query",
    ]
