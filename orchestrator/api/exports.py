"""Results as a file in the format asked for, and results in the order in which they end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from orchestrator.api.access import Viewer
from orchestrator.api.jobs import job_with_results
from orchestrator.api.paging import MAX_LIMIT, AfterLine
from orchestrator.api.services import Use
from orchestrator.exports.cells import to_csv
from orchestrator.exports.own import NO_COLUMNS, columns_of, metadata_of, spread
from orchestrator.exports.parquet import to_parquet
from orchestrator.exports.records import Position, ended_so_far, records

router = APIRouter(prefix="/api/jobs", tags=["results"])

NEXT = "x-next-after"

MEDIA_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8", "parquet": "application/x-parquet"}


@router.get("/{job_id}/export", response_class=StreamingResponse)
def export(
    *,
    job_id: str,
    use: Use,
    caller: Viewer,
    format: Annotated[Literal["jsonl", "csv", "parquet"], Query()] = "jsonl",  # noqa: A002 - the parameter's name
    trace: Annotated[bool, Query(description="With stages, candidates and verdicts (not in CSV).")] = False,
    joined: Annotated[
        bool, Query(description="With question, images, choices, known answer and the other columns of the input.")
    ] = False,
    after: AfterLine = 0,
) -> Response:
    """The queries that ended, as one file in the order of the input."""
    job = job_with_results(use, caller, job_id)
    found = records(use.db, use.objects, job.id, trace=trace and format != "csv", joined=joined, after_line=after)
    headers = {"content-disposition": f'attachment; filename="{job.id}.{format}"', "x-content-type-options": "nosniff"}
    # Lines of JSON need not know all columns before the first row.
    own = columns_of(metadata_of(use.db, job.id)) if joined and format != "jsonl" else NO_COLUMNS
    chunks: Iterator[bytes]
    if format == "csv":
        chunks = to_csv(found, joined=joined, own=own)
    elif format == "parquet":
        chunks = to_parquet(found, trace=trace, joined=joined, own=own)
    else:
        chunks = (orjson.dumps(spread(record)) + b"\n" for record in found)
    return StreamingResponse(chunks, media_type=MEDIA_TYPES[format], headers=headers)


@router.get("/{job_id}/ended", response_class=StreamingResponse)
def ended(
    *,
    job_id: str,
    use: Use,
    caller: Viewer,
    after: Annotated[str | None, Query(max_length=80, description="The cursor of the last line you have.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = MAX_LIMIT,
) -> Response:
    """Results in the order in which they ended, while the job runs and after; each line has its `cursor`.

    Nothing is met twice or missed. A result shows here two seconds after it ended, or when the job has.
    """
    job = job_with_results(use, caller, job_id)
    position = Position.parse(after) if after else None
    found = ended_so_far(use.db, job.id, position, limit, use.now())
    body = b"".join(orjson.dumps({"cursor": str(at), **record}) + b"\n" for at, record in found)
    headers = {NEXT: str(found[-1][0]) if found else (after or "")}
    return Response(body, media_type=MEDIA_TYPES["jsonl"], headers=headers)
