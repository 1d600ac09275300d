"""`stagebeam schedule`: recurring runs over datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from orchestrator.cli.terminal.exits import CommandError, Exit
from orchestrator.cli.terminal.nouns import verbs
from orchestrator.cli.terminal.output import AsJson, DryRun, document, listing, say

app = verbs("Run datasets again and again, computing only what changed.")

Name = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Name of the schedule.")]
Note = Annotated[str, typer.Option(help="Why; shown with the schedule.")]

SUMMARY = ("name", "dataset", "sentence", "state", "next", "failures", "runs", "paused_reason", "managed_by", "changes")
"""Fields of a schedule shown to people; --json has all."""


@app.command()
def create(  # noqa: PLR0913, PLR0917 - a parameter for each flag
    name: Name,
    dataset: Annotated[str, typer.Option(help="Name of the dataset to run.")],
    cron: Annotated[str | None, typer.Option(help='Five fields, such as "0 3 * * *".')] = None,
    every: Annotated[str | None, typer.Option(help="Interval, such as 90s, 15m, 6h or 1d.")] = None,
    at: Annotated[list[str] | None, typer.Option(help="Time of day (HH:MM); may be repeated.")] = None,
    on: Annotated[
        list[str] | None, typer.Option(help="Weekday (mon ... sun), or day of the month (1-31, last); may be repeated.")
    ] = None,
    zone: Annotated[str, typer.Option(help="Time zone of the rule.")] = "UTC",
    start: Annotated[str | None, typer.Option(help="No slot before this (2026-11-30T03:00).")] = None,
    end: Annotated[str | None, typer.Option(help="No slot at or after this.")] = None,
    jitter: Annotated[float | None, typer.Option(help="Seconds that a run may begin after its slot.")] = None,
    max_runs: Annotated[int | None, typer.Option(help="Runs in all.")] = None,
    overlap: Annotated[
        str | None, typer.Option(help="skip, queue_one, queue_all, cancel_running or allow.  [default: skip]")
    ] = None,
    catch_up: Annotated[str | None, typer.Option(help="none, latest or all.  [default: latest]")] = None,
    pause_after: Annotated[int | None, typer.Option(help="Failed runs in a row after which it pauses itself.")] = None,
    webhook: Annotated[
        str | None, typer.Option(help="Address that failures, missed slots and drops are told to.")
    ] = None,
    options: Annotated[str | None, typer.Option(help="Further options as a JSON object.")] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Make it paused.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a schedule, or change the one of that name. A changed rule takes effect from now."""
    from orchestrator.cli.terminal.client import connect
    from orchestrator.cli.terminal.flags import given, json_object

    rule = given(
        kind=_kind(cron, every, at), cron=cron, every_s=_seconds(every), times=at, zone=zone, start=start, end=end
    )
    rule |= given(jitter_s=jitter, max_runs=max_runs, **_days(on))
    chosen = json_object("--options", options) | given(
        overlap=overlap, catch_up=catch_up, pause_after_failures=pause_after
    )
    if webhook is not None:
        chosen["alerts"] = {**chosen.get("alerts", {}), "url": webhook}
    body = {"dataset": dataset, "rule": rule, "options": chosen, "paused": paused}
    with connect() as api:
        _show(api.put(_path(name), body, dry_run=dry_run or None), as_json=as_json)


@app.command("list")
def list_schedules(as_json: AsJson = False) -> None:
    """List schedules with their next slot and their newest outcomes."""
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        found = (_listed(row) if not as_json else row for row in api.pages("/api/schedules"))
        listing(found, ("name", "dataset", "sentence", "state", "next", "last"), as_json=as_json)


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show a schedule with its next five times."""
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        _show(api.get(_path(name)), as_json=as_json)


@app.command()
def slots(
    name: Name,
    status: Annotated[list[str] | None, typer.Option(help="Only slots in this state; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Slots at most.")] = 30,
    as_json: AsJson = False,
) -> None:
    """List the slots of a schedule, newest first: what ran, what was skipped or missed, and why."""
    from orchestrator.cli.terminal.client import connect

    columns = ("id", "due", "origin", "status", "reason", "report.rows", "report.computed", "report.reused", "note")
    with connect() as api:
        found = api.pages(f"{_path(name)}/slots", limit=limit, status=status or None)
        listing(
            ({**row, "due": _time(row["due_at"])} if not as_json else row for row in found), columns, as_json=as_json
        )


@app.command()
def preview(
    name: Name,
    at: Annotated[str | None, typer.Option(help="When, as 2026-11-30T03:00Z.  [default: now]")] = None,
    rows: Annotated[bool, typer.Option("--rows", help="Read the dataset and count what a run would compute.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what the scheduler would do at a time, the next five times, and what a run would compute."""
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        found = api.get(f"{_path(name)}/preview", at=_moment(at), rows=rows or None)
    if as_json:
        document(found, as_json=True)
        return
    if found["would"]:
        listing(found["would"], ("local", "action", "reason", "note"), as_json=False)
    shown = {"slots due by then": found["would_count"], "next": ", ".join(entry["local"] for entry in found["next"])}
    document({**shown, **({"run": found["run"]} if found["run"] else {})}, as_json=False)


@app.command()
def pause(name: Name, note: Note = "", dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Skip slots from now on. Workers, jobs under way and other schedules go on."""
    _act(name, "pause", {"reason": note}, dry_run=dry_run, as_json=as_json)


@app.command()
def resume(name: Name, note: Note = "", dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Run slots again from now on; those of the pause stay skipped."""
    _act(name, "resume", {"reason": note}, dry_run=dry_run, as_json=as_json)


@app.command()
def run(name: Name, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Run now. No slot of the rule moves."""
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        document(api.post(f"{_path(name)}/run", dry_run=dry_run or None), as_json=as_json)


@app.command()
def backfill(  # noqa: PLR0913, PLR0917 - a parameter for each flag
    name: Name,
    start: Annotated[str, typer.Option("--from", help="First slot, as 2026-11-01T00:00Z.")],
    end: Annotated[str, typer.Option("--to", help="Last slot.")],
    which: Annotated[str, typer.Option(help="missing, failed or all.")] = "missing",
    newest_first: Annotated[bool, typer.Option("--newest-first", help="Begin with the last slot.")] = False,
    overlap: Annotated[str, typer.Option(help="queue_all (one by one) or allow (all at once).")] = "queue_all",
    cap: Annotated[int, typer.Option(min=1, max=500, help="Slots at most.")] = 500,
    confirm: Annotated[str, typer.Option(help="The schedule's name, typed; needed for more than 50 slots.")] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Run slots of the past, over the dataset as it is now and behind all other work.

    Look first with --dry-run: it lists the slots and tells the cost.
    """
    from orchestrator.cli.terminal.client import connect

    body = {
        "start": _moment(start),
        "end": _moment(end),
        "which": which,
        "newest_first": newest_first,
        "overlap": overlap,
        "cap": cap,
        "confirm": confirm,
    }
    with connect() as api:
        found = api.post(f"{_path(name)}/backfill", body, dry_run=dry_run or None)
    if as_json:
        document(found, as_json=True)
        return
    listing(found["slots"], ("local", "was", "attempt"), as_json=False)
    say(f"{found['count']} slots {'would run' if dry_run else 'were made'}: {found['reads']}.")
    if dry_run and found["cost_at_most"] is not None:
        cost = found["cost_at_most"]
        say(f"At most {cost['candidates_max']} candidates are drawn in all; rows that did not change cost nothing.")


@app.command()
def delete(name: Name, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Remove a schedule and the history of its slots; jobs and results stay."""
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        _show(api.delete(_path(name), dry_run=dry_run or None), as_json=as_json)


@app.command("apply")
def apply_file(
    file: Annotated[Path, typer.Argument(help="YAML of datasets and schedules, version 1.")],
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make and change what a definition file names, all or nothing, and show the differences."""
    from orchestrator.cli.terminal.client import connect
    from orchestrator.schedules.definitions import read_definitions

    with connect() as api:
        found = api.post("/api/schedules/apply", dict(read_definitions(file)), dry_run=dry_run or None)
    if as_json:
        listing(found["data"], (), as_json=True)
        return
    shown = [{**entry, **change} for entry in found["data"] for change in entry["changes"] or [{}]]
    listing(shown, ("name", "outcome", "kept_in", "field", "before", "after"), as_json=False)
    kept = sorted({entry["kept_in"] for entry in found["data"] if entry["kept_in"] and entry["outcome"] == "changed"})
    if kept:
        say(f"What is kept in {', '.join(kept)} changes when the scheduler starts again with that file, not from here.")


def _act(name: str, action: str, body: dict[str, Any], *, dry_run: bool, as_json: bool) -> None:
    from orchestrator.cli.terminal.client import connect

    with connect() as api:
        _show(api.post(f"{_path(name)}/{action}", body, dry_run=dry_run or None), as_json=as_json)


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        document(found, as_json=True)
        return
    found = {**found, "changes": [change for change in found.get("changes", ()) if change["before"] is not None]}
    shown = {field: found[field] for field in SUMMARY if found.get(field) not in (None, [], "")}
    if "next" in shown:
        shown["next"] = ", ".join(entry["local"] for entry in shown["next"])
    document(shown, as_json=False)


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    ticks = " ".join(slot["status"] for slot in row["last"][-5:])
    return {**row, "next": _time(row["next_at"]), "last": ticks or "-"}


def _time(at: float | None) -> str:
    from datetime import UTC, datetime

    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ")


def _kind(cron: str | None, every: str | None, at: list[str] | None) -> str:
    kinds = [kind for kind, value in (("cron", cron), ("interval", every), ("calendar", at)) if value]
    if len(kinds) != 1:
        raise CommandError("give one of --cron, --every and --at", exit_code=Exit.BAD_INPUT, code="invalid_rule")
    return kinds[0]


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(every: str | None) -> float | None:
    if every is None:
        return None
    number, unit = every[:-1], every[-1:]
    if unit not in _UNITS or not number.replace(".", "", 1).isdigit():
        raise CommandError(
            f'--every is "{every}"; write it as 90s, 15m, 6h or 1d', exit_code=Exit.BAD_INPUT, code="invalid_rule"
        )
    return float(number) * _UNITS[unit]


def _days(on: list[str] | None) -> dict[str, Any]:
    if not on:
        return {}
    numbers = [-1 if day == "last" else int(day) for day in on if day == "last" or day.isdigit()]
    names = [day for day in on if day != "last" and not day.isdigit()]
    return ({"weekdays": names} if names else {}) | ({"month_days": numbers} if numbers else {})


def _moment(text: str | None) -> float | None:
    from datetime import UTC, datetime

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = f'"{text}" is no time; write it as 2026-11-30T03:00Z'
        raise CommandError(message, exit_code=Exit.BAD_INPUT, code="invalid_time") from None
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()


def _path(name: str) -> str:
    return f"/api/schedules/{quote(name, safe='')}"
