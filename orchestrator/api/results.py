"""Result lines of a job, streamed while it runs and after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from orchestrator.api.access import Viewer
from orchestrator.api.jobs import job_with_results
from orchestrator.api.paging import AfterLine
from orchestrator.api.services import Services, Use
from orchestrator.manifest import of_job
from orchestrator.results import result_lines

router = APIRouter(prefix="/api/jobs", tags=["results"])

CURSOR_FIELD = "line"
"""Every result line carries its input line; the greatest one seen is the cursor of the next reading."""


@router.get("/{job_id}/results", response_class=StreamingResponse)
def results(
    *,
    job_id: str,
    use: Use,
    caller: Viewer,
    trace: Annotated[bool, Query(description="With the stages, their candidates and verdicts.")] = False,
    after: AfterLine = 0,
    limit: Annotated[int | None, Query(ge=1, description="Lines at most.")] = None,
) -> StreamingResponse:
    """One JSON line per query that ended, in the order of the input; partial while the job runs."""
    job = job_with_results(use, caller, job_id)
    lines = _lines(use, job.id, trace=trace, after=after, limit=limit)
    return StreamingResponse(lines, media_type="application/x-ndjson")


@router.get("/{job_id}/manifest")
def manifest(job_id: str, use: Use, caller: Viewer) -> dict[str, Any]:
    """What an ended job was made with, its counts, and size and SHA-256 of its files."""
    job = job_with_results(use, caller, job_id)
    with use.db.read() as conn:
        return of_job(conn, job)


def _lines(use: Services, job_id: str, *, trace: bool, after: int, limit: int | None) -> Iterator[bytes]:
    found = result_lines(use.db, use.objects, job_id, trace=trace, after_line=after, limit=limit)
    for number, line in found:
        yield orjson.dumps({CURSOR_FIELD: number, **line}) + b"\n"
