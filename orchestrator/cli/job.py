"""`stagebeam job`: submit, list, show, watch, steer, and fetch results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from orchestrator.cli.terminal.datasets import Column, Format, Question, Rows, Split
from orchestrator.cli.terminal.exits import CommandError, Exit
from orchestrator.cli.terminal.nouns import verbs
from orchestrator.cli.terminal.output import AsJson, DryRun, document, listing, say, show_details

app = verbs("Submit jobs, watch and steer them, fetch their results.")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]
Reason = Annotated[str, typer.Option(help="Why; shown with the job.")]

SUMMARY = ("id", "name", "status", "model", "counts", "usage", "error_count")
"""Fields of a job shown to people; `job show` has all."""


@app.command()
def submit(  # noqa: PLR0913, PLR0917 - a parameter for each flag
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSONL, a table, a folder or object:PREFIX (- is stdin).")
    ],
    model: Annotated[str | None, typer.Option(help="Model that answers.  [default: that of the server]")] = None,
    strategy: Annotated[str | None, typer.Option(help="single or stage_beam.")] = None,
    candidates: Annotated[int | None, typer.Option(help="Candidates per stage.")] = None,
    judge: Annotated[str | None, typer.Option(help="labels or words.")] = None,
    mode: Annotated[str | None, typer.Option(help="strict or published.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the job.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="New tokens per candidate and stage at most.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds until a query answers as it can.")] = None,
    policy: Annotated[str | None, typer.Option(help="Further policy fields as a JSON object.")] = None,
    priority: Annotated[str | None, typer.Option(help="interactive, batch or background.")] = None,
    on_bad_line: Annotated[str | None, typer.Option(help="fail (the job) or skip (the line).")] = None,
    image_root: Annotated[list[Path] | None, typer.Option(help="Another folder of images; may be repeated.")] = None,
    format: Format = None,  # noqa: A002 - the flag's name
    column: Column = None,
    question: Question = None,
    split: Split = None,
    limit: Rows = None,
    name: Annotated[str | None, typer.Option(help="Name shown in lists.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="A word or KEY=VALUE to find it by; may be repeated.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the job ends.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Submit questions: JSONL, CSV, TSV, parquet, a Hugging Face folder or a folder of images. Images are sent along.

    A dry run sends the input, has the server validate it and tell the cost, and makes no job.
    """
    from orchestrator.cli.terminal.client import connect
    from orchestrator.cli.terminal.datasets import Flags, send_input
    from orchestrator.cli.terminal.submission import policy_of
    from orchestrator.labels import read

    flags = {"strategy": strategy, "candidates": candidates, "judge": judge, "mode": mode, "seed": seed}
    limits = {"temperature": temperature, "max_tokens": max_tokens, "deadline_s": deadline}
    asked = {
        "model": model,
        "policy": policy_of({**flags, **limits}, policy),
        "priority": priority,
        "on_bad_line": on_bad_line,
        "name": name if name is not None else Path(file).name if file != "-" else None,
        "metadata": read(label) if label else None,
    }
    with connect() as api:
        file_id = send_input(api, file, image_root or (), Flags(format, column, question, split, limit))
        body = {"file_id": file_id, **{key: value for key, value in asked.items() if value is not None}}
        if dry_run:
            _show_plan(api.post("/api/jobs", body, dry_run=True), as_json=as_json)
            return
        job = api.post("/api/jobs", body)
        say(f"submitted {job['id']}")
        if job["same_as"]:
            say(f"the same questions were asked with the same settings before: stagebeam job show {job['same_as']}")
        _follow(api, job["id"], to_the_end=wait, as_json=as_json)


@app.command("list")
def list_jobs(
    status: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs whose name contains this.")] = None,
    filter: Annotated[str | None, typer.Option(help='As on the page, such as "label:night is:attention".')] = None,  # noqa: A002
    limit: Annotated[int, typer.Option(min=1, help="Jobs at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    from orchestrator.cli.terminal.client import connect

    columns = ("id", "name", "status", "model", "counts.total", "counts.done", "counts.failed", "progress")
    with connect() as api:
        wanted = {"status": status or None, "name": name, "filter": filter}
        listing(api.pages("/api/jobs", limit=limit, **wanted), columns, as_json=as_json)


@app.command()
def show(job: JobId, as_json: AsJson = False) -> None:
    """Show a job with its counts, usage and errors."""
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        document(api.get(_path(job)), as_json=as_json)


@app.command()
def watch(job: JobId, as_json: AsJson = False) -> None:
    """Watch a job until it ends. Ctrl-C detaches; the job goes on."""
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        _follow(api, job, to_the_end=True, as_json=as_json)


@app.command()
def cancel(
    job: JobId,
    reason: Reason = "",
    now: Annotated[bool, typer.Option("--now", help="Give up the queries that run, too.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Stop a job: nothing new starts, and queries that run may end within ten minutes. Answers are kept.

    A second cancel with --now gives up what still runs; the first may have it at once.
    """
    found = _act(job, "cancel", reason, dry_run=dry_run, as_json=as_json, **({"now": True} if now else {}))
    running = found["counts"]["running"]
    if running and found["status"] == "cancelling" and found["killed_at"] is None:
        say(f"{running} queries still run and may end; to give them up: stagebeam job cancel {job} --now")


@app.command()
def retry(job: JobId, reason: Reason = "", dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Start the failed, cancelled and expired queries of an ended job again."""
    _act(job, "retry", reason, dry_run=dry_run, as_json=as_json)


@app.command()
def pause(job: JobId, reason: Reason = "", dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Start no more queries of a job; those that run go on."""
    _act(job, "pause", reason, dry_run=dry_run, as_json=as_json)


@app.command()
def resume(job: JobId, reason: Reason = "", dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Start queries of a paused job again."""
    _act(job, "resume", reason, dry_run=dry_run, as_json=as_json)


@app.command()
def remove(job: JobId, reason: Reason = "", dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Remove the results, files and traces of an ended job for good. Its counts stay. Needs the role admin."""
    _act(job, "remove", reason, dry_run=dry_run, as_json=as_json)


@app.command()
def results(  # noqa: PLR0917 - a parameter for each flag
    job: JobId,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write.  [default: stdout]")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="With stages, candidates and verdicts.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only lines after this line of the input.")] = 0,
    joined: Annotated[bool, typer.Option("--joined", help="With the columns of the input beside ours.")] = False,
    format: Annotated[str, typer.Option(help="jsonl, csv or parquet (these two into a file).")] = "jsonl",  # noqa: A002
    as_json: AsJson = False,
) -> None:
    """Write one JSON line per query that ended, in the order of the input; partial while the job runs."""
    from orchestrator.cli.terminal.client import connect
    from orchestrator.cli.terminal.fetch import write_lines

    if format != "jsonl":
        wanted = {"format": format, "trace": trace, "joined": joined, "after": after}
        _export(job, output, wanted, as_json=as_json)
        return
    path = f"{_path(job)}/{'export' if joined else 'results'}"
    with connect() as api, api.lines(path, trace=trace or None, after=after or None, joined=joined or None) as lines:
        count = write_lines(lines, output)
    if output is None:
        return
    if as_json:
        document({"job": job, "lines": count, "output": str(output)}, as_json=True)
    else:
        say(f"{count} lines in {output}")


@app.command()
def files(
    job: JobId,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch output.jsonl, error.jsonl and manifest.json of an ended job; without -o show the manifest alone.

    Each file is compared with the hash that the manifest gives before it is kept.
    """
    from orchestrator.cli.terminal.client import connect
    from orchestrator.cli.terminal.fetch import fetch_files

    with connect() as api:
        manifest = api.get(f"{_path(job)}/manifest")
        if output is not None:
            fetch_files(api, manifest, output)
    document(manifest, as_json=as_json)


@app.command()
def clone(  # noqa: PLR0917 - a parameter for each flag
    job: JobId,
    policy: Annotated[str | None, typer.Option(help="Policy fields that change, as a JSON object.")] = None,
    model: Annotated[str | None, typer.Option(help="Another model.")] = None,
    priority: Annotated[str | None, typer.Option(help="interactive, batch or background.")] = None,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Submit the input of a job again, with changes. A dry run tells the cost and makes no job."""
    from orchestrator.cli.terminal.client import connect
    from orchestrator.cli.terminal.submission import policy_of

    changes = {"policy": policy_of({}, policy), "model": model, "priority": priority, "name": name}
    with connect() as api:
        body = {key: value for key, value in changes.items() if value is not None}
        found = api.post(f"{_path(job)}/clone", body, dry_run=dry_run or None)
    if dry_run:
        _show_plan(found, as_json=as_json)
    document(found if as_json else {name: found[name] for name in SUMMARY}, as_json=as_json)


def _export(job: str, output: Path | None, params: dict[str, Any], *, as_json: bool) -> None:
    from orchestrator.cli.terminal.client import connect

    if params["format"] == "csv" and params["trace"]:
        message = "csv has no place for stages; leave out --trace, or take --format jsonl or parquet"
        raise CommandError(message, exit_code=Exit.BAD_INPUT, code="invalid_flag")
    if output is None:
        message = "csv and parquet are written into a file: add -o FILE"
        raise CommandError(message, exit_code=Exit.BAD_INPUT, code="missing_output")
    with connect() as api:
        size = api.download(f"{_path(job)}/export", output, **params)
    if as_json:
        document({"job": job, "bytes": size, "output": str(output)}, as_json=True)
    else:
        say(f"{size} bytes in {output}")


def _follow(api: Any, job_id: str, *, to_the_end: bool, as_json: bool) -> None:
    from orchestrator.cli.terminal.watch import exit_code
    from orchestrator.cli.terminal.watch import watch as watch_job

    job = watch_job(api, job_id, until=None if to_the_end else lambda seen: seen["status"] != "validating")
    refused = tuple(job["errors"]) if job["status"] == "failed" else ()
    if refused:
        shown = f"the first {len(refused)} of {job['error_count']}" if job["error_count"] > len(refused) else "all"
        failure = CommandError("", exit_code=Exit.BAD_INPUT, details=refused)
        errors = "1 error" if job["error_count"] == 1 else f"{job['error_count']} errors, {shown} of them shown"
        say(f"error: the input has {errors}; nothing was run:")
        show_details(failure)
    elif to_the_end and not as_json:
        say(f"results: stagebeam job results {job_id} -o results.jsonl")
    document(job if as_json else {name: job[name] for name in SUMMARY}, as_json=as_json)
    code = exit_code(job) if to_the_end or refused else Exit.OK
    raise typer.Exit(code)


def _show_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    if plan["errors"]:
        show_details(CommandError("", exit_code=Exit.BAD_INPUT, details=tuple(plan["errors"])))
    document(plan if as_json else {key: value for key, value in plan.items() if key != "errors"}, as_json=as_json)
    raise typer.Exit(Exit.BAD_INPUT if plan["error_count"] else Exit.OK)


def _act(job: str, action: str, reason: str, *, dry_run: bool, as_json: bool, **more: Any) -> dict[str, Any]:
    from orchestrator.cli.terminal.client import connect

    body = {"reason": reason, **more} if reason else more
    with connect() as api:
        found: dict[str, Any] = api.post(f"{_path(job)}/{action}", body or None, dry_run=dry_run or None)
    if dry_run:
        say(f"dry run, nothing was changed: the server would {action} this job as it is now")
    document(found if as_json else {name: found[name] for name in SUMMARY}, as_json=as_json)
    return found


def _path(job: str) -> str:
    return f"/api/jobs/{quote(job, safe='')}"
