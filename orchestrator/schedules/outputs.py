"""The results of a slot under its own prefix: lines, optionally parquet, and a manifest that is written last.

Who finds a manifest finds everything it names, whole. Writing is repeatable: a run that died half-way is
written again under the same keys.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from orchestrator import manifest
from orchestrator.schedules.layout import fill, parquet_key
from orchestrator.schedules.options import Options
from storage import queries
from storage.database import Database
from storage.objects import ObjectStore

COPY_BYTES = 2**20
ROWS_AT_ONCE = 1000
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Run:
    """The rows behind one run."""

    slot: Any
    schedule: Any
    dataset: Any
    job: Any


def write_outputs(db: Database, objects: ObjectStore, run: Run, report: dict[str, Any]) -> str:
    """Write everything of an ended job; returns the prefix. Raises Transient, StoreFull."""
    slot, schedule, dataset, job = run.slot, run.schedule, run.dataset, run.job
    options = Options.from_mapping(schedule.options)
    prefix = fill(options.output_prefix, schedule.name, dataset.name, slot.due_at, slot.id)
    written = [_copy(db, objects, job, name, f"{prefix}/{name}.jsonl") for name in ("output", "error")]
    if options.parquet:
        key = parquet_key(schedule.name, slot.due_at, slot.id)
        written.append(_parquet(db, objects, job, key))
    document = {
        **manifest.head(job),
        "schedule": {"id": schedule.id, "name": schedule.name, "version": slot.version},
        "dataset": {"id": dataset.id, "name": dataset.name},
        "slot": {"id": slot.id, "due_at": slot.due_at, "origin": slot.origin, "attempt": slot.attempt},
        "revisions": report.get("revisions"),
        "counts": {
            name: report[name] for name in ("rows", "new", "changed", "removed", "reused", "computed", "failed")
        },
        "files": [entry for entry in written if entry],
    }
    body = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    objects.put(f"{prefix}/{MANIFEST}", body, media_type="application/json")
    return prefix


def remove_outputs(objects: ObjectStore, schedule: Any, slot: Any) -> None:
    """Remove what `write_outputs` wrote, the manifest first: what it named is no longer whole."""
    if slot.output_prefix is None:
        return
    objects.delete(f"{slot.output_prefix}/{MANIFEST}")
    for entry in list(objects.list(f"{slot.output_prefix}/")):
        objects.delete(entry.key)
    objects.delete(parquet_key(schedule.name, slot.due_at, slot.id))


def _copy(db: Database, objects: ObjectStore, job: Any, name: str, key: str) -> dict[str, Any] | None:
    with db.read() as conn:
        row = manifest.file_of(conn, job, name)
    if row is None:
        return None
    with closing(objects.open(row.object_key)) as source:
        objects.put(key, source, media_type="application/jsonl")
    return {**manifest.entry(f"{name}.jsonl", row.bytes, row.sha256), "key": key}


def _parquet(db: Database, objects: ObjectStore, job: Any, key: str) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in _COLUMNS])
    with tempfile.TemporaryFile() as spool:
        with pq.ParquetWriter(spool, schema, compression="zstd") as writer:
            for rows in _pages(db, job.id):
                writer.write_table(pa.Table.from_pylist(rows, schema))
        spool.seek(0)
        digest, size = _measured(spool)
        spool.seek(0)
        objects.put(key, spool, media_type="application/vnd.apache.parquet")
    return {**manifest.entry(key.rpartition("/")[2], size, digest), "key": key}


_COLUMNS = (
    ("custom_id", "string"),
    ("status", "string"),
    ("question", "string"),
    ("answer", "string"),
    ("known_answer", "string"),
    ("error_code", "string"),
    ("reused", "bool"),
    ("content_key", "string"),
    ("query_id", "int64"),
)


def _pages(db: Database, job_id: str) -> Iterator[list[dict[str, Any]]]:
    line = 0
    while True:
        with db.read() as conn:
            page = queries.next_page(conn, job_id, after_line=line, size=ROWS_AT_ONCE)
        if page is None:
            return
        line = page.last_line
        yield [_row(row) for row in page.rows]


def _row(row: Any) -> dict[str, Any]:
    known = row.body.get("answer")
    return {
        "custom_id": row.custom_id,
        "status": row.status,
        "question": row.body.get("question"),
        "answer": row.answer,
        "known_answer": None if known is None else known if isinstance(known, str) else orjson.dumps(known).decode(),
        "error_code": (row.error or {}).get("code"),
        "reused": row.reused_from is not None,
        "content_key": row.content_key,
        "query_id": row.id,
    }


def _measured(stream: Any) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    source: BinaryIO = stream
    while chunk := source.read(COPY_BYTES):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size
