"""Everything that validation finds wrong with an input, as a download: the page shows the first of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

import orjson
from starlette.responses import Response, StreamingResponse

from orchestrator.exports.cells import guarded
from orchestrator.intake.records import LineError
from orchestrator.submit import JobRequest, line_errors
from orchestrator.web.jobs import job_of
from orchestrator.web.pages import HEADERS, Ask

COLUMNS = ("line", "field", "code", "message")
TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}


def of_job(ask: Ask) -> Response:
    """Errors of the input of a job; none where the job came without a file. Raises BadInput when its file is gone."""
    with ask.use.db.read() as conn:
        job = job_of(ask, conn)
    if job.input_file_id is None:
        return _sent(ask, (), job.id)
    request = JobRequest(
        project_id=ask.viewer.project_id,
        input_file_id=job.input_file_id,
        model=job.model,
        policy=job.policy,
        line_format=job.line_format,
        options=job.options,
    )
    return download(ask, request, job.id)


def download(ask: Ask, request: JobRequest, name: str) -> Response:
    """The errors as `?as=csv` or JSON lines, written while they are found. Raises BadInput on the request itself."""
    return _sent(ask, line_errors(ask.use.db, ask.use.objects, request, ask.use.settings, ask.use.now), name)


def _sent(ask: Ask, errors: Iterable[LineError], name: str) -> Response:
    form = "csv" if ask.query.get("as") == "csv" else "jsonl"
    headers = {**HEADERS, "content-disposition": f'attachment; filename="{name}-errors.{form}"'}
    found = _csv(errors) if form == "csv" else _jsonl(errors)
    return StreamingResponse(found, headers=headers, media_type=TYPES[form])


def _jsonl(errors: Iterable[LineError]) -> Iterator[bytes]:
    for error in errors:
        yield orjson.dumps(error.to_json()) + b"\n"


def _csv(errors: Iterable[LineError]) -> Iterator[bytes]:
    yield _row(COLUMNS)
    for error in errors:
        yield _row([guarded(error.to_json()[name]) for name in COLUMNS])


def _row(cells: Iterable[object]) -> bytes:
    """One row, quoted as spreadsheets expect; a lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue().encode("utf-8", "replace")
