"""`stagebeam demo`: the main job on the embedded stack, end to end, on images made here, with and without search."""

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
    from orchestrator.cli.terminal.demo_report import Run
    from storage.settings import Settings

app = single()

SEED = 2026
"""Of the scenes; those of the split `test` were never seen in training."""
LONGEST_S = 70.0
"""Each job runs out of time after this, so that the demo ends within three minutes on two slow cores."""
WORKER_S = 300.0
"""Patience with a model that loads."""
SINGLE_PASS: dict[str, Any] = {"strategy": "single"}
"""What the search is held against: all four stages written once, with the same sampling, and nobody chooses."""


@app.command()
def demo(
    count: Annotated[int, typer.Option(min=1, max=1000, help="Questions to answer.")] = 128,
    candidates: Annotated[int, typer.Option(min=1, max=16, help="Candidates per stage.")] = 4,
    model: Annotated[str | None, typer.Option(help="What answers.  [default: the trained demo model]")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the demo.  [default: data/demo]")] = None,
    as_json: AsJson = False,
) -> None:
    """Answer questions about pictures of simple scenes by stage-level beam search, and show how it went."""
    from orchestrator.cli.terminal.client import Api
    from orchestrator.cli.terminal.demo_report import Report
    from orchestrator.cli.terminal.output import document
    from orchestrator.cli.terminal.submission import send_file
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
        with Api(stack.url) as api:
            # The first question must not pay for the loading of the model.
            stack.wait_for(lambda: _worker_ready(api), "the worker did not become ready", WORKER_S)
            say(f"broker, worker, orchestrator and API run ({time.monotonic() - started:.1f} s)")
            file_id = send_file(api, str(questions), ())
            say("one pass, no search:")
            plain = _run(api, file_id, "demo, one pass", SINGLE_PASS, settings.data_dir / "one-pass.jsonl")
            say(f"stage-level beam search, {candidates} candidates a stage:")
            searched = _run(api, file_id, "demo", {"candidates": candidates}, settings.data_dir / "results.jsonl")
            report = Report(questions, plain, searched)
            trace = _trace(api, searched, report.telling())
    if as_json:
        document(report.document(), as_json=True)
    else:
        for line in report.lines(trace):
            write(line)
        write(f"to look around: stagebeam up --data {settings.data_dir} --model {settings.model}")
    raise typer.Exit(exit_code(searched.job))


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


def _worker_ready(api: Api) -> bool:
    return any(worker["state"] == "ready" for worker in api.get("/api/workers")["data"])


def _run(api: Api, file_id: str, name: str, policy: dict[str, Any], results: Path) -> Run:
    from orchestrator.cli.terminal.demo_report import Run
    from orchestrator.cli.terminal.fetch import write_lines
    from orchestrator.cli.terminal.watch import watch

    body = {"file_id": file_id, "name": name, "policy": policy, "completion_window_s": LONGEST_S}
    job = watch(api, api.post("/api/jobs", body)["id"])
    with api.lines(f"/api/jobs/{job['id']}/results", trace=True) as found:
        write_lines(found, results)
    with results.open(encoding="utf-8") as lines:
        return Run(job, {line["custom_id"]: line for line in map(json.loads, lines)}, results)


def _trace(api: Api, searched: Run, custom_id: str) -> dict[str, Any]:
    found = api.get(f"/api/jobs/{searched.job['id']}/queries", custom_id=custom_id)["data"]
    return dict(api.get(f"/api/queries/{found[0]['id']}/trace"))
