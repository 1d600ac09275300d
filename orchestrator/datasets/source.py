"""The door: what a path or an open file holds, and its lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from orchestrator.datasets import columnar, folders, tables
from orchestrator.datasets.columns import Numbers, find_columns, guess, to_lines
from orchestrator.datasets.converted import Convert, from_anthropic, from_gemini
from orchestrator.datasets.numbers import number_columns
from orchestrator.datasets.spec import Line, OpenFile, Row, Source, SourceSpec
from orchestrator.intake.lines import TooLong, split_lines
from orchestrator.intake.unpack import unpack
from reasoning.errors import BadInput

READ_BYTES = 2**20
MAX_LINE_BYTES = 64 * 2**20
MAX_BYTES = 200 * 2**30
"""Decompressed bytes of a text input."""
HEAD_BYTES = 8
_LOOKED_AT = 1000
"""Lines at most among which the first readable one tells the form of all."""

_SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".pq": "parquet"}
_PACKED = (".gz", ".gzip", ".zst", ".zstd")
_CONVERTERS: Mapping[str, Convert] = {"anthropic": from_anthropic, "gemini": from_gemini}


def open_source(spec: SourceSpec) -> Source:
    """Look at a dataset and start to read it.

    Memory stays bounded by its longest row (for parquet: by a row group), however long it is.

    Raises:
        BadInput: it cannot be read, its format cannot be told, or a column is missing. Reading `lines` raises
            it too where the data breaks off.
    """
    chosen = spec.format if spec.format != "auto" else detect(spec)
    if spec.split is not None and chosen != "huggingface":
        raise BadInput(
            f"a split is chosen of a Hugging Face folder, and {spec.name} is read as {chosen}; leave the split out",
            code="invalid_value",
            field="split",
        )
    source = _READERS[chosen](spec)
    lines = source.lines if spec.limit is None else islice(source.lines, spec.limit)
    return Source(source.format, source.mapping, lines, source.notes)


def detect(spec: SourceSpec) -> str:
    """The format of a dataset by its name and first bytes. Raises BadInput when there is nothing there."""
    location = spec.location
    if isinstance(location, Path):
        if location.is_dir():
            return _folder_format(location)
        if not location.is_file():
            raise BadInput(f"there is no file or folder {location}", code="file_not_found", field="location")
    with spec.open() as stream:
        head = stream.read(HEAD_BYTES)
    if head.startswith(b"PAR1"):
        return "parquet"
    suffixes = [suffix.lower() for suffix in Path(spec.name).suffixes if suffix.lower() not in _PACKED]
    found = _SUFFIXES.get(suffixes[-1] if suffixes else "", "jsonl")
    if found == "tsv" and tables.is_vlmevalkit(tables.header(spec.open, "\t")):
        return "vlmevalkit"
    return found


def _folder_format(folder: Path) -> str:
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        return "huggingface"
    if next(folder.rglob("*.parquet"), None) is not None:
        return "huggingface"
    return "images"


def _read_jsonl(spec: SourceSpec) -> Source:
    readable = (record for record in islice(_records(spec), _LOOKED_AT) if set(record) != {"error"})
    first = next(readable, None)
    form = "native" if first is None else _form(first, spec)
    if form == "columns":
        assert first is not None  # noqa: S101 - only a record has columns
        return _mapped("jsonl", list(first), _records(spec), spec)
    convert = _CONVERTERS.get(form)
    return Source(
        "jsonl" if convert is None else form,
        {},
        _as_they_are(spec) if convert is None else _converted(spec, convert),
        (f"lines are in the {form} form",),
    )


def _form(record: Mapping[str, Any], spec: SourceSpec) -> str:
    """What the lines of a JSONL file are, by the first one."""
    if isinstance(record.get("params"), Mapping) and "messages" in record["params"]:
        return "anthropic"
    if isinstance(record.get("request"), Mapping) and "contents" in record["request"]:
        return "gemini"
    if "body" in record and "question" not in record:
        return "chat"
    if {"custom_id", "question"} <= set(record) and not spec.columns and spec.question is None:
        # Without a column to take for the images, a misspelled field is more likely than a table.
        return "native" if "images" in record or not guess("images", list(record)) else "columns"
    return "columns"


def _read_other_lines(spec: SourceSpec) -> Source:
    return Source(spec.format, {}, _converted(spec, _CONVERTERS[spec.format]))


def _records(spec: SourceSpec) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file; a line that is none becomes one that says so."""
    with spec.open() as stream:
        chunks = iter(lambda: stream.read(READ_BYTES), b"")
        for number, line in split_lines(unpack(chunks, MAX_BYTES), MAX_LINE_BYTES):
            yield _record(number, line)


def _record(number: int, line: bytes | TooLong) -> dict[str, Any]:
    try:
        record = orjson.loads(line) if isinstance(line, bytes) else None
    except orjson.JSONDecodeError as error:
        return _marker("invalid_json_line", f"line {number} is not JSON: {error.msg}; write one object a line.")
    if not isinstance(record, dict):
        return _marker("invalid_json_line", f"line {number} is no JSON object, or too long.")
    return record


def _as_they_are(spec: SourceSpec) -> Iterator[Line]:
    yield from _records(spec)


def _converted(spec: SourceSpec, convert: Convert) -> Iterator[Line]:
    for record in _records(spec):
        try:
            yield record if set(record) == {"error"} else convert(record)
        except BadInput as error:
            yield _marker(error.code, error.message)


def _marker(code: str, message: str) -> Line:
    return {"error": {"code": code, "message": message}}


def _read_delimited(delimiter: str, name: str) -> Callable[[SourceSpec], Source]:
    def read(spec: SourceSpec) -> Source:
        names = tables.header(spec.open, delimiter)
        return _mapped(name, names, tables.read_table(spec.open, delimiter), spec, _numbers(spec, delimiter, names))

    return read


def _read_vlmevalkit(spec: SourceSpec) -> Source:
    names = tables.header(spec.open, "\t")
    return _mapped("vlmevalkit", names, tables.read_vlmevalkit(spec.open), spec, _numbers(spec, "\t", names))


def _numbers(spec: SourceSpec, delimiter: str, names: list[str]) -> Numbers:
    def numbers(used: frozenset[str]) -> frozenset[str]:
        rows = tables.read_table(spec.open, delimiter)
        return number_columns(islice(rows, spec.limit), set(names) - used)

    return numbers


def _read_parquet(spec: SourceSpec) -> Source:
    location = spec.location.stream if isinstance(spec.location, OpenFile) else spec.location
    return _mapped("parquet", columnar.parquet_columns(location), columnar.read_parquet(location), spec)


def _read_huggingface(spec: SourceSpec) -> Source:
    folder = spec.location
    if not isinstance(folder, Path) or not folder.is_dir():
        raise BadInput("a Hugging Face dataset is a folder", code="invalid_value", field="format")
    saved = columnar.saved_files(folder, spec.split)
    if saved is not None:
        split, paths = saved
        return _noted(_mapped("huggingface", columnar.arrow_columns(paths[0]), columnar.read_arrow(paths), spec), split)
    found = columnar.parquet_files(folder, spec.split)
    if found is None:
        raise BadInput(f"{folder} holds neither Arrow nor parquet files", code="invalid_table", field="location")
    split, paths = found
    rows = (row for path in paths for row in columnar.read_parquet(path))
    return _noted(_mapped("huggingface", columnar.parquet_columns(paths[0]), rows, spec), split)


def _noted(source: Source, split: str | None) -> Source:
    notes = (f"split {split}",) if split else ()
    return Source(source.format, source.mapping, source.lines, (*source.notes, *notes))


def _read_images(spec: SourceSpec) -> Source:
    table = folders.metadata_file(spec.location) if isinstance(spec.location, Path) else None
    if table is not None:
        inner = SourceSpec(location=table, columns=spec.columns, question=spec.question)
        read = open_source(inner)
        return Source("images", read.mapping, read.lines, (*read.notes, f"rows from {table.name}"))
    question = folders.question_of(spec)
    return Source("images", {"question": f"text: {question}"}, folders.image_lines(spec))


def _read_objects(_spec: SourceSpec) -> Source:
    raise BadInput(
        "objects of the server's store are read by the server: send object_prefix to POST /api/datasets",
        code="invalid_value",
        field="format",
    )


def _mapped(
    name: str, names: list[str], rows: Iterator[Row], spec: SourceSpec, numbers: Numbers = lambda _: frozenset()
) -> Source:
    if not names:
        raise BadInput(f"{spec.name} has no columns; check that it is not empty", code="empty_file", field="location")
    columns = find_columns(names, spec)
    notes = () if columns.images else ("no column looks like images; name it with --column images=NAME",)
    return Source(name, columns.to_json(), to_lines(rows, columns, numbers), notes)


_READERS: Mapping[str, Callable[[SourceSpec], Source]] = {
    "jsonl": _read_jsonl,
    "csv": _read_delimited(",", "csv"),
    "tsv": _read_delimited("\t", "tsv"),
    "vlmevalkit": _read_vlmevalkit,
    "parquet": _read_parquet,
    "huggingface": _read_huggingface,
    "images": _read_images,
    "objects": _read_objects,
    "anthropic": _read_other_lines,
    "gemini": _read_other_lines,
}
