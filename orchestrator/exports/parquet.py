"""Parquet: typed columns, stages with their candidates and verdicts as nested lists."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import orjson

from orchestrator.exports.own import NO_COLUMNS, OwnColumns

ROW_GROUP = 1000
"""Rows held in memory and written as one group."""
TRACED_GROUP = 100
"""The same when each row brings its trace."""


def to_parquet(
    records: Iterable[Mapping[str, Any]], *, trace: bool, joined: bool, own: OwnColumns = NO_COLUMNS
) -> Iterator[bytes]:
    """The file in pieces: a row group is sent when it is full, and forgotten.

    `own` are the columns of the user's that stand beside ours.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(trace=trace, joined=joined, own=own)
    names = set(schema.names)
    sink = _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for group in _groups(records, TRACED_GROUP if trace else ROW_GROUP):
            rows = [{name: value for name, value in _row(record, own).items() if name in names} for record in group]
            writer.write_table(pa.Table.from_pylist(rows, schema))
            yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """Where the writer writes: keeps what was not taken yet, and knows how far the file is."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._size += len(part)
        return len(part)

    def tell(self) -> int:
        return self._size

    def take(self) -> bytes:
        """What was written since the last time."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data

    def close(self) -> None:
        return  # the end of the file is taken after the writer has closed it


def _groups(records: Iterable[Mapping[str, Any]], size: int) -> Iterator[list[Mapping[str, Any]]]:
    source = iter(records)
    while group := list(islice(source, size)):
        yield group


def _schema(*, trace: bool, joined: bool, own: OwnColumns) -> Any:
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
        ]  # fmt: skip
        fields += [(name, kind.arrow()) for name, kind in own.kinds.items()]
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


def _row(record: Mapping[str, Any], own: OwnColumns) -> dict[str, Any]:
    row = dict(record)
    if "expected" in row:
        values = own.row(row.pop("metadata"))
        row |= {name: own.kinds[name].fitted(value) for name, value in values.items() if name in own.kinds}
        expected = row["expected"]
        row["expected"] = expected if isinstance(expected, str) or expected is None else orjson.dumps(expected).decode()
    trace = row.get("trace")
    if trace is not None:
        row["stages"] = [_stage(stage) for stage in trace["stages"]]
    return row


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    verdicts = [{**item, "first": item["pair"][0], "second": item["pair"][1]} for item in stage["verdicts"]]
    return {**stage, "verdicts": verdicts}
