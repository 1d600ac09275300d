"""The result line of a query: one JSON document, the same from the API, the command line and the output file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orchestrator.completions import output_line
from orchestrator.traces import traces_of
from storage import jobs, queries
from storage.database import Database
from storage.objects import ObjectStore

Renderer = Callable[[Any, Any, Mapping[str, Any] | None], dict[str, Any]]
"""Job row, query row and its trace (or None) to a line."""

ERROR_FIELDS = ("code", "message", "stage", "attempts", "retryable")


def native_line(row: Any, trace: Mapping[str, Any] | None) -> dict[str, Any]:
    """The line of `stagebeam job results`: custom_id, status, answer, error, usage, and the stages if asked for."""
    line: dict[str, Any] = {
        "custom_id": row.custom_id,
        "status": row.status,
        "answer": row.answer,
        "error": None if row.error is None else {name: row.error.get(name) for name in ERROR_FIELDS},
        "usage": row.usage,
    }
    if row.degraded_reason is not None:
        line["degraded_reason"] = row.degraded_reason
    if trace is not None:
        line["format_ok"] = row.format_ok
        line["trace"] = trace
    return line


RENDERERS: dict[str, Renderer] = {"native": lambda _job, row, trace: native_line(row, trace), "openai": output_line}
"""By `jobs.line_format`."""


def result_lines(
    db: Database,
    objects: ObjectStore,
    job_id: str,
    *,
    trace: bool = False,
    after_line: int = 0,
    limit: int | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and native result line of every ended query in line order, while the job runs or after.

    `after_line` continues where an earlier reading stopped. Rows are read in short transactions, a page each.
    """
    with db.read() as conn:
        job = jobs.get(conn, job_id)
    left = limit
    while job is not None and (left is None or left > 0):
        with db.read() as conn:
            page = queries.next_page(conn, job_id, after_line=after_line, size=min(500, left or 500))
            if page is None:
                return
            found = traces_of(conn, objects, job, page.rows) if trace else {}
        for row in page.rows:
            yield row.line, native_line(row, found.get(row.id))
        after_line = page.last_line
        left = None if left is None else left - len(page.rows)
