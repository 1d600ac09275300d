"""Parquet: typed columns, stages with their candidates and verdicts as nested lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import IO, Any

import orjson

ROW_GROUP = 1000
"""Rows held in memory and written as one group."""
TRACED_GROUP = 100
"""The same when each row brings its trace."""


def write_parquet(records: Iterable[Mapping[str, Any]], sink: IO[bytes], *, trace: bool, joined: bool) -> int:
    """Write the records and return how many there were."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(trace=trace, joined=joined)
    names = set(schema.names)
    count = 0
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for group in _groups(records, TRACED_GROUP if trace else ROW_GROUP):
            rows = [{name: value for name, value in _row(record).items() if name in names} for record in group]
            writer.write_table(pa.Table.from_pylist(rows, schema))
            count += len(rows)
    return count


def _groups(records: Iterable[Mapping[str, Any]], size: int) -> Iterator[list[Mapping[str, Any]]]:
    source = iter(records)
    while group := list(islice(source, size)):
        yield group


def _schema(*, trace: bool, joined: bool) -> Any:
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    usage = [(name, whole) for name in _USAGE] + [("engine_seconds", real)]
    error = [("code", text), ("message", text), ("stage", text), ("attempts", whole), ("retryable", pa.bool_())]
    fields: list[Any] = [
        ("line", whole), ("custom_id", text), ("status", text), ("answer", text), ("degraded_reason", text),
        ("error", pa.struct(error)), ("usage", pa.struct(usage)),
    ]  # fmt: skip
    if joined:
        fields += [
            ("question", text), ("choices", pa.list_(text)), ("images", pa.list_(text)), ("expected", text),
            ("metadata", text),
        ]  # fmt: skip
    if trace:
        candidate = [
            ("index", whole), ("attempt", whole), ("status", text), ("reason", text), ("text", text), ("tokens", whole),
            ("finish", text), ("format_ok", pa.bool_()),
        ]  # fmt: skip
        verdict = [
            ("round", whole), ("first", whole), ("second", whole), ("winner", whole), ("how", text), ("margin", real),
            ("swap_agreed", pa.bool_()),
        ]  # fmt: skip
        stage = [
            ("stage", text), ("winner", whole), ("candidates", pa.list_(pa.struct(candidate))),
            ("verdicts", pa.list_(pa.struct(verdict))),
        ]  # fmt: skip
        fields += [("format_ok", pa.bool_()), ("stages", pa.list_(pa.struct(stage)))]
    return pa.schema(fields)


_USAGE = ("prompt_tokens", "cached_tokens", "generated_tokens", "kept_tokens", "answer_tokens", "discarded_tokens",
          "judged_tokens", "vision_calls", "candidates", "verdicts")  # fmt: skip


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    row = dict(record)
    if "expected" in row:
        expected = row["expected"]
        row["expected"] = expected if isinstance(expected, str) or expected is None else orjson.dumps(expected).decode()
        row["metadata"] = orjson.dumps(row.get("metadata") or {}).decode()
    trace = row.get("trace")
    if trace is not None:
        row["stages"] = [_stage(stage) for stage in trace["stages"]]
    return row


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    verdicts = [{**item, "first": item["pair"][0], "second": item["pair"][1]} for item in stage["verdicts"]]
    return {**stage, "verdicts": verdicts}
