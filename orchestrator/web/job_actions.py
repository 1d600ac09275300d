"""What people do to jobs and their queries from a page: each is audited with its reason, then redirects."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
from starlette.responses import Response, StreamingResponse

from orchestrator import actions, manifest
from orchestrator.api.access import record
from orchestrator.api.files import pieces
from orchestrator.removal import remove_results
from orchestrator.results import result_lines
from orchestrator.web.bulk import begin, reason
from orchestrator.web.jobs import job_of
from orchestrator.web.pages import HEADERS, Ask

FILES = {"output": "output", "errors": "error"}
"""Parts of the results that a job has a file of, and its name there."""


def cancel(ask: Ask) -> Response:
    """Stop a job; with `now` what runs is given up, too."""
    job_id, why = _named(ask)
    at_once = ask.field("now") == "1"
    actions.cancel_job(ask.use.db, job_id, ask.use.now(), why, at_once=at_once)
    return _done(ask, job_id, "cancel_now" if at_once else "cancel", why)


def pause(ask: Ask) -> Response:
    """Admit no more queries of a job."""
    job_id, why = _named(ask)
    actions.pause_job(ask.use.db, job_id, ask.use.now(), why)
    return _done(ask, job_id, "pause", why)


def resume(ask: Ask) -> Response:
    """Admit queries again."""
    with ask.use.db.read() as conn:
        job_id = job_of(ask, conn).id
    actions.resume_job(ask.use.db, job_id)
    return _done(ask, job_id, "resume", None)


def retry(ask: Ask) -> Response:
    """Start what failed again."""
    return begin(ask, "retry", "")


def remove(ask: Ask) -> Response:
    """Remove the results of an ended job for good."""
    job_id, why = _named(ask)
    remove_results(ask.use.db, ask.use.objects, job_id, ask.use.now(), why)
    return _done(ask, job_id, "remove", why)


def lines(ask: Ask) -> Response:
    """Result lines as a download: all, or answers and errors apart; partial while the job runs.

    Of a job that has ended, answers and errors are the very files that its manifest names.
    """
    part = ask.query.get("part", "all")
    with ask.use.db.read() as conn:
        job = job_of(ask, conn)
        actions.refuse_removed(job)
        written = manifest.file_of(conn, job, FILES[part]) if part in FILES and job.ended_at is not None else None
    found = (
        pieces(ask.use.objects, written.object_key)
        if written is not None
        else _lines(ask, job.id, part, trace=bool(ask.query.get("trace")))
    )
    return StreamingResponse(
        found, headers=_download(f"{job.id}-{_plain(part)}.jsonl"), media_type="application/x-ndjson"
    )


def manifest_of(ask: Ask) -> Response:
    """Counts of an ended job, and size and hash of its files, as a download."""
    with ask.use.db.read() as conn:
        job = job_of(ask, conn)
        actions.refuse_removed(job)
        document = manifest.of_job(conn, job)
    body = orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"
    return Response(body, headers=_download(f"{job.id}-manifest.json"), media_type="application/json")


def _download(name: str) -> dict[str, str]:
    return {**HEADERS, "content-disposition": f'attachment; filename="{name}"'}


def _lines(ask: Ask, job_id: str, part: str, *, trace: bool) -> Iterator[bytes]:
    for _, line in result_lines(ask.use.db, ask.use.objects, job_id, trace=trace):
        answered = line["status"] in manifest.ANSWERED
        if part == "all" or answered is (part == "output"):
            yield orjson.dumps(line) + b"\n"


def _plain(part: str) -> str:
    return part if part in FILES else "results"


def _named(ask: Ask) -> tuple[str, str]:
    """The job of the address, which must be the viewer's, and the reason given."""
    with ask.use.db.read() as conn:
        job_id = job_of(ask, conn).id
    return job_id, reason(ask)


def _done(ask: Ask, job_id: str, action: str, why: str | None) -> Response:
    with ask.use.db.write() as conn:
        record(conn, ask.viewer.caller, ask.use.now(), f"job.{action}", job_id, why)
    ask.web.snapshots.forget()
    return ask.go("jobs", job_id, done=action)
