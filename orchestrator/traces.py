"""How a question was thought through: built from call rows, or read from the part they were folded into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import zstandard
from sqlalchemy import Connection

from reasoning.plan import Answer, Decision, Failed
from reasoning.policy import Policy
from reasoning.records import CallError, Ref
from reasoning.trace import build_trace
from storage import jobs, planning, queries
from storage.objects import ObjectStore


def trace_of(conn: Connection, objects: ObjectStore, query_id: int) -> dict[str, Any] | None:
    """The trace document of one query; None when there is no such query."""
    row = queries.get(conn, query_id)
    if row is None:
        return None
    job = jobs.get(conn, row.job_id)
    return traces_of(conn, objects, job, [row])[query_id]


def traces_of(conn: Connection, objects: ObjectStore, job: Any, rows: Sequence[Any]) -> dict[int, dict[str, Any]]:
    """Trace documents of queries of one job, by query id."""
    calls = planning.calls_of(conn, [row.id for row in rows])
    found = {}
    folded: dict[str, dict[int, int]] = {}
    for row in rows:
        if row.id not in calls and row.trace_key is not None:
            # A result that was taken over has its trace under the query that it came from.
            folded.setdefault(row.trace_key, {})[row.reused_from or row.id] = row.id
            continue
        policy = Policy.from_mapping(job.policy).with_overrides(row.body.get("policy") or {})
        # A line that validation refused has no question; its trace is one of no stages begun.
        query = queries.to_record(row.custom_id, {"question": "", "images": [], **row.body})
        found[row.id] = build_trace(policy, query, calls.get(row.id, []), decided(row))
    for key, ids in folded.items():
        found.update(
            (ids[document["id"]], document["trace"]) for document in read_part(objects, key) if document["id"] in ids
        )
    return found


def decided(row: Any) -> Decision | None:
    """The stored decision of a query that ended; None while it runs, so that the trace decides by the rows."""
    if row.status in ("done", "degraded"):
        path = tuple(Ref.from_json(item) for item in row.path or ())
        return Answer(row.answer, path, bool(row.format_ok), row.degraded_reason)
    if row.error is None:
        return None
    error = {name: row.error[name] for name in CallError.__slots__ if name in row.error}
    return Failed(CallError.from_json(error), row.error.get("stage") or "")


def write_part(objects: ObjectStore, key: str, documents: Iterable[Mapping[str, Any]]) -> None:
    """One compressed part: a line per query with `id`, `custom_id` and `trace`."""
    text = b"".join(orjson.dumps(document) + b"\n" for document in documents)
    objects.put(key, zstandard.ZstdCompressor(level=6).compress(text), media_type="application/zstd")


def read_part(objects: ObjectStore, key: str) -> list[dict[str, Any]]:
    """The documents of a part."""
    with objects.open(key) as stream:
        text = zstandard.ZstdDecompressor().decompressobj().decompress(stream.read())
    return [orjson.loads(line) for line in text.splitlines()]
