"""Watching a job: a bar with rate and ETA on a terminal, plain lines without one. Ctrl-C detaches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from orchestrator.cli.terminal.client import Api
from orchestrator.cli.terminal.exits import CommandError, Exit
from orchestrator.cli.terminal.output import say

ENDED = ("completed", "failed", "cancelled", "expired")
POLL_S = 0.5
LINE_EVERY_S = 5.0
PATIENCE_S = 60.0
"""How long a server may be away while we watch: it may be starting again."""


class Display(Protocol):
    """Where progress is shown."""

    def show(self, job: dict[str, Any]) -> None: ...


def watch(api: Api, job_id: str, *, until: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
    """Show the progress of a job until it ends, or until `until` holds; returns its document.

    Raises:
        CommandError: interrupted (the job goes on), not found, or the server stayed away.
    """
    try:
        with _display() as display:
            while True:
                job = _patiently(api, job_id)
                display.show(job)
                if job["status"] in ENDED or (until is not None and until(job)):
                    return job
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        message = f"detached; the job goes on. Come back with `stagebeam job watch {job_id}`."
        raise CommandError(message, exit_code=Exit.INTERRUPTED, code="detached") from None


def exit_code(job: dict[str, Any]) -> Exit:
    """What a finished job means for the shell."""
    counts = job["counts"]
    if job["status"] == "failed":
        return Exit.BAD_INPUT if job["errors"] else Exit.QUERIES_FAILED
    failed = counts["failed"] + counts["cancelled"] + counts["expired"]
    return Exit.QUERIES_FAILED if failed or job["status"] != "completed" else Exit.OK


def describe(job: dict[str, Any]) -> str:
    """The state of a job in one line."""
    counts = job["counts"]
    if job["status"] == "validating":
        return "validating the input"
    ended = counts["total"] - counts["waiting"] - counts["running"]
    parts = [f"{ended}/{counts['total']} queries", f"{counts['running']} running"]
    parts += [f"{counts[state]} {state}" for state in ("degraded", "failed", "cancelled", "expired") if counts[state]]
    state = "paused" if job["paused"] and job["status"] == "running" else job["status"]
    return f"{state}: {', '.join(parts)}"


def duration(seconds: float | None) -> str:
    """Seconds for people; None says that nothing honest can be said."""
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


UNKNOWN = {
    "paused": "paused",
    "starting": "no worker of this model is ready yet",
    "no_worker": "no worker serves this model; `stagebeam worker list` shows who is there",
    "stalled": "nothing has ended for a while",
    "too_early": "too early to tell",
}
"""Why the time left is not known, by `eta_ground`."""


def _left(job: dict[str, Any]) -> str:
    why = UNKNOWN.get(job.get("eta_ground", ""))
    return duration(job["eta_s"]) if job["eta_s"] is not None or why is None else f"unknown ({why})"


def _patiently(api: Api, job_id: str) -> dict[str, Any]:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            return dict(api.get(f"/api/jobs/{job_id}"))
        except CommandError as error:
            if error.exit_code is not Exit.UNREACHABLE or time.monotonic() > give_up:
                raise
            time.sleep(POLL_S)


@contextmanager
def _display() -> Iterator[Display]:
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[pace]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        yield _Bar(progress, progress.add_task("waiting", total=None, pace=""))


class _Lines:
    """A line at each change of state, and every few seconds while numbers move."""

    def __init__(self) -> None:
        self._said = ("", "")
        self._at = float("-inf")

    def show(self, job: dict[str, Any]) -> None:
        said = (job["status"], describe(job))
        due = time.monotonic() - self._at >= LINE_EVERY_S
        if said[0] != self._said[0] or (due and said != self._said):
            say(f"{said[1]}, time left: {_left(job)}" if job["status"] == "running" else said[1])
            self._said, self._at = said, time.monotonic()


class _Bar:
    def __init__(self, progress: Any, task: Any) -> None:
        self._progress = progress
        self._task = task

    def show(self, job: dict[str, Any]) -> None:
        counts = job["counts"]
        ended = counts["total"] - counts["waiting"] - counts["running"]
        known = job["status"] != "validating" and counts["total"] > 0
        self._progress.update(
            self._task,
            description=describe(job),
            completed=ended,
            total=counts["total"] if known else None,
            pace=_pace(job, ended),
        )


def _pace(job: dict[str, Any], ended: int) -> str:
    if job["status"] != "running" or not job["started_at"]:
        return ""
    if not ended:
        return UNKNOWN.get(job.get("eta_ground", ""), "") if job["eta_s"] is None else ""
    rate = ended / max(time.time() - job["started_at"], 1e-3)
    return f"{rate:.2g} queries/s, time left {_left(job)}"
