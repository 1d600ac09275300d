"""CSV for people: flat columns, and no cell that a spreadsheet would run as a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from orchestrator.exports.own import NO_COLUMNS, OwnColumns

COLUMNS = ("line", "custom_id", "status", "answer", "error_code", "error_message", "degraded_reason", "prompt_tokens",
           "generated_tokens", "kept_tokens", "discarded_tokens", "judged_tokens", "engine_seconds")  # fmt: skip
JOINED = ("question", "choices", "images", "expected")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings that make a spreadsheet take text for a formula."""
BATCH_ROWS = 200


def to_csv(records: Iterable[Mapping[str, Any]], *, joined: bool, own: OwnColumns = NO_COLUMNS) -> Iterator[bytes]:
    """UTF-8 CSV with a header, a piece at a time. `own` are the columns of the user's that stand beside ours."""
    columns = (*COLUMNS, *(JOINED if joined else ()), *own.kinds)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([guarded(name) for name in columns])
    for count, record in enumerate(records, start=1):
        flat = _flat(record) | (own.row(record["metadata"]) if joined else {})
        writer.writerow([guarded(flat.get(name)) for name in columns])
        if count % BATCH_ROWS == 0:
            yield _taken(buffer)
    yield _taken(buffer)


def guarded(value: Any) -> Any:
    """A cell as it is, or with an apostrophe in front where a spreadsheet would run it."""
    if isinstance(value, dict | list):
        value = orjson.dumps(value).decode()
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return value


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    error, usage = record.get("error") or {}, record.get("usage") or {}
    return {**usage, **record, "error_code": error.get("code"), "error_message": error.get("message")}


def _taken(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue().encode("utf-8", "replace")
    buffer.seek(0)
    buffer.truncate()
    return text
