"""Finalize: when a job has nothing left to do, its lines go to output.jsonl, error.jsonl and trace parts.

Each input line stands in exactly one of the two files. Writing is repeatable: keys are fixed, a run that
died half-way is done again from the start.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any

import orjson
import structlog

from orchestrator.manifest import ANSWERED
from orchestrator.outbox import announce
from orchestrator.results import RENDERERS, Renderer
from orchestrator.traces import traces_of, write_part
from storage import files, jobs, queries, transitions
from storage.database import Database
from storage.objects import ObjectStore, keys

log = structlog.get_logger()

PART_QUERIES = 200
"""Queries per trace part: a part is read whole to show one of them."""

SPOOL_BYTES = 8 * 2**20
"""Output held in memory before it goes to a temporary file."""


@dataclass(slots=True)
class _Sink:
    stream: IO[bytes]
    lines: int = 0
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def write(self, document: dict[str, Any]) -> None:
        line = orjson.dumps(document) + b"\n"
        self.stream.write(line)
        self.digest.update(line)
        self.lines += 1
        self.size += len(line)


def finalize(
    db: Database, objects: ObjectStore, job_id: str, now: Callable[[], float], new_id: Callable[[str], str]
) -> None:
    """Write the files of a job in `finalizing` and end it as completed, cancelled or expired."""
    with db.read() as conn:
        job = jobs.get(conn, job_id)
    if job is None or job.status != "finalizing":
        return
    renderer = RENDERERS[job.line_format]
    with ExitStack() as stack:
        output, error = (_Sink(stack.enter_context(tempfile.SpooledTemporaryFile(SPOOL_BYTES))) for _ in range(2))
        _write_lines(db, objects, job, renderer, output, error)
        stored = {}
        for name, sink in (("output", output), ("error", error)):
            if sink.lines and job.source != "chat":  # one question now has its answer already
                sink.stream.seek(0)
                key = keys.job_file(job_id, f"{name}.jsonl")
                objects.put(key, sink.stream, media_type="application/jsonl")
                stored[name] = (key, sink)
    _end(db, job, stored, now(), new_id)


def _write_lines(db: Database, objects: ObjectStore, job: Any, renderer: Renderer, output: _Sink, error: _Sink) -> None:
    after_line, part = 0, 0
    while True:
        with db.read() as conn:
            page = queries.next_page(conn, job.id, after_line=after_line, size=PART_QUERIES)
            if page is None:
                return
            # Results that were taken over keep their traces where they are.
            own = [row for row in page.rows if row.reused_from is None]
            traces = traces_of(
                conn, objects, job, [row for row in page.rows if row.reused_from is None or _asked(job, row)]
            )
        for row in page.rows:
            (output if row.status in ANSWERED else error).write(renderer(job, row, _shown(job, row, traces)))
        key = keys.job_file(job.id, f"traces/part-{part:06d}.jsonl.zst")
        if own:
            write_part(
                objects, key, ({"id": row.id, "custom_id": row.custom_id, "trace": traces[row.id]} for row in own)
            )
            with db.write() as conn:
                queries.set_trace_key(conn, [row.id for row in own], key)
        after_line, part = page.last_line, part + 1


def _shown(job: Any, row: Any, traces: dict[int, dict[str, Any]]) -> dict[str, Any] | None:
    """The hidden stages go into the output file only when the submission asked for them."""
    return traces[row.id] if _asked(job, row) else None


def _asked(job: Any, row: Any) -> bool:
    return bool((job.options or {}).get("trace") or (row.body.get("wire") or {}).get("trace"))


def _end(
    db: Database, job: Any, stored: dict[str, tuple[str, _Sink]], now: float, new_id: Callable[[str], str]
) -> None:
    # A job that was retried ends again: what it has no lines for this time must not point to the file of before.
    columns: dict[str, Any] = {
        "trace_prefix": keys.job_file(job.id, "traces/"),
        "output_file_id": None,
        "error_file_id": None,
    }
    expiry_s = (job.options or {}).get("output_expires_s")
    with db.write() as conn:
        for earlier in (job.output_file_id, job.error_file_id):
            if earlier is not None:
                files.delete(conn, job.project_id, earlier, now)  # its bytes have just been replaced
        for name, (key, sink) in stored.items():
            file_id = new_id("file")
            files.create(
                conn,
                id=file_id,
                project_id=job.project_id,
                purpose="batch_output",
                filename=f"{job.id}_{name}.jsonl",
                bytes=sink.size,
                sha256=sink.digest.hexdigest(),
                object_key=key,
                now=now,
                expires_at=now + expiry_s if expiry_s else None,
            )
            columns[f"{name}_file_id"] = file_id
        out_of_time = job.expired and job.expires_at is not None and job.expires_at < now
        to = "cancelled" if job.cancelling_at is not None else "expired" if out_of_time else "completed"
        if transitions.move_job(conn, job.id, to, now, reason=job.status_reason or "all queries ended", **columns):
            announce(conn, job, to, now)
    log.info("A job ended.", action="job.ended", job_id=job.id, status=to)
