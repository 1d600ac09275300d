"""The source of a named dataset, opened: lines whose images are bytes, references, or paths below some folders.

Kinds: `path` (a file or folder on the server), `glob` (several files), `prefix` (objects of the store), `sql` (a
query on a connection that the server's settings name).
"""

from __future__ import annotations

import glob as globs
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, get_args

from orchestrator.datasets.columns import find_columns, to_lines
from orchestrator.datasets.folders import IMAGE_SUFFIXES, object_lines
from orchestrator.datasets.source import open_source
from orchestrator.datasets.spec import FORMATS, Line, OpenFile, Source, SourceSpec
from orchestrator.intake.keeper import OPEN_PREFIXES
from orchestrator.schedules.identity import identified
from orchestrator.schedules.sql import checked_query, read_query
from reasoning.errors import BadInput, nearest
from storage.objects import ObjectStore
from storage.settings import Settings

Kind = Literal["path", "glob", "prefix", "sql"]
TABLE_SUFFIXES = frozenset({".jsonl", ".csv", ".tsv", ".parquet", ".pq", ".gz", ".zst"})
MAX_FILES = 100_000
"""Files of a glob or keys of a prefix."""
_NAMES = ("kind", "address", "format", "split", "query")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """Where a dataset comes from. Field names are the JSON keys of `datasets.source`."""

    kind: Kind
    address: str
    """Path, glob, key prefix, or name of an SQL connection."""
    format: str = "auto"
    split: str | None = None
    query: str | None = None
    """The SELECT of an `sql` source; `:slot` stands for the time of the slot."""

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Self:
        """Read decoded JSON. Raises BadInput."""
        for name in data:
            if name not in _NAMES:
                raise _bad(str(name), f'unknown field "{name}".{nearest(str(name), _NAMES)}', "unknown_field")
        for name, value in data.items():
            if value is not None and not isinstance(value, str):
                raise _bad(name, f"{name} must be text", "invalid_type")
        given = {name: value for name, value in data.items() if value is not None}
        if given.get("kind") not in get_args(Kind):
            raise _bad("kind", f"kind is {given.get('kind')!r}; use one of: {', '.join(get_args(Kind))}")
        if not given.get("address", "").strip() or "\0" in given["address"]:
            raise _bad("address", "address is missing; name a path, a glob, a key prefix or an SQL connection")
        source = cls(**given)
        source._check()
        return source

    def _check(self) -> None:
        if self.format not in FORMATS:
            known = ", ".join(FORMATS)
            raise _bad("format", f'there is no format "{self.format}".{nearest(self.format, FORMATS)} Use: {known}')
        if self.kind in ("path", "glob") and not os.path.isabs(self.address):  # noqa: PTH117 - a glob is no path
            raise _bad("address", "address must be an absolute path: the server has a folder of its own")
        if self.kind == "prefix" and not self.address.startswith(OPEN_PREFIXES):
            raise _bad("address", f"a key prefix must begin with {' or '.join(OPEN_PREFIXES)}")
        if (self.kind == "sql") != (self.query is not None):
            raise _bad("query", "a source of kind sql, and no other, needs a query")
        if self.query is not None:
            checked_query(self.query)

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values; those that are not set are left out."""
        found = {name: getattr(self, name) for name in _NAMES}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Opened:
    """A source that is being read."""

    lines: Iterator[Line]
    roots: Sequence[Path] = ()
    """Folders that images named by path may lie in."""
    mapping: Mapping[str, Any] = field(default_factory=dict)
    """Column by part, for people."""
    notes: tuple[str, ...] = ()
    """What was assumed and may be wrong."""


@dataclass(frozen=True, slots=True)
class SourceReader:
    """Opens the sources of dataset rows."""

    objects: ObjectStore
    settings: Settings

    def __call__(self, dataset: Any, due_at: float, limit: int | None = None) -> Opened:
        """Open the source of a dataset as it is now.

        Raises:
            BadInput: it is gone, cannot be read, or lacks a column. Reading the lines raises it too.
            Transient: the store or the database behind it does not answer.
        """
        source = SourceSettings.from_mapping(dataset.source)
        found, roots = self._opened(source, dataset.mapping, due_at)
        lines = identified(found, list(dataset.identity))
        return Opened(islice(lines, limit), (*roots, *self.settings.image_roots), found.mapping, found.notes)

    def _opened(
        self, source: SourceSettings, mapping: Mapping[str, Any], due_at: float
    ) -> tuple[Source, tuple[Path, ...]]:
        def spec(location: Path | OpenFile) -> SourceSpec:
            columns, question = mapping.get("columns") or {}, mapping.get("question")
            return SourceSpec(
                location=location, format=source.format, split=source.split, columns=columns, question=question
            )

        if source.kind == "sql":
            names, rows = read_query(self.settings, source.address, source.query or "", due_at)
            columns = find_columns(names, spec(Path(source.address)))
            return Source("sql", columns.to_json(), to_lines(rows, columns)), ()
        if source.kind == "prefix":
            return self._objects(source.address, spec), ()
        if source.kind == "glob":
            return _globbed(source.address, spec)
        chosen = spec(Path(source.address))
        found = open_source(chosen)
        return found, (chosen.folder,) if chosen.folder else ()

    def _objects(self, prefix: str, spec: Any) -> Source:
        keys = [item.key for item in islice(self.objects.list(prefix), MAX_FILES + 1)]
        _check_count(keys, prefix)
        tables = [key for key in keys if Path(key).suffix.lower() in TABLE_SUFFIXES]
        if not tables:
            return Source("objects", {}, object_lines(self.objects, prefix, spec(Path(prefix))))
        return _chained([self._table(key, spec) for key in tables[:1]], (self._table(key, spec) for key in tables[1:]))

    def _table(self, key: str, spec: Any) -> Source:
        stream = self.objects.open(key)
        found = open_source(spec(OpenFile(key.rpartition("/")[2], stream)))
        return replace(found, lines=_closing(found.lines, stream))


def _closing(lines: Iterator[Line], stream: BinaryIO) -> Iterator[Line]:
    with stream:
        yield from lines


def _globbed(pattern: str, spec: Any) -> tuple[Source, tuple[Path, ...]]:
    paths = [Path(name) for name in sorted(islice(globs.iglob(pattern, recursive=True), MAX_FILES + 1))]  # noqa: PTH207 - absolute
    _check_count(paths, pattern)
    folder = Path(os.path.commonpath([str(path.parent) for path in paths]))
    if all(path.suffix.lower() in IMAGE_SUFFIXES for path in paths):
        question = spec(folder).question
        if not question:
            raise BadInput("images need one question for all of them: give --question", code="no_question")
        names = (path.relative_to(folder).as_posix() for path in paths)
        lines = ({"custom_id": name, "question": question, "images": [name]} for name in names)
        return Source("images", {"question": f"text: {question}"}, lines), (folder,)
    found = _chained([open_source(spec(paths[0]))], (open_source(spec(path)) for path in paths[1:]))
    return found, tuple(dict.fromkeys(path.parent for path in paths))


def _chained(first: list[Source], rest: Iterable[Source]) -> Source:
    """Several sources of one shape as one; the first tells what they are."""
    lines = chain.from_iterable(source.lines for source in chain(first, rest))
    return Source(first[0].format, first[0].mapping, lines, first[0].notes)


def _check_count(names: Sequence[Any], address: str) -> None:
    if not names:
        raise BadInput(f"there is nothing at {address}; check the address", code="source_missing", field="source")
    if len(names) > MAX_FILES:
        raise BadInput(f"{address} names more than {MAX_FILES} files", code="source_too_large", field="source")


def check_reach(source: SourceSettings, settings: Settings, *, admin: bool) -> None:
    """Refuse a place on the server that the caller may not read. Raises BadInput (`source_outside_roots`)."""
    if admin or source.kind == "prefix":
        return
    if source.kind == "sql":
        raise BadInput(
            "a dataset over an SQL connection is made by an admin", code="source_outside_roots", field="source"
        )
    if ".." in Path(source.address).parts or not _below(source, settings.image_roots):
        raise BadInput(
            f"{source.address} lies outside the folders of STAGEBEAM_IMAGE_ROOTS; an admin may name any folder",
            code="source_outside_roots",
            field="source.address",
        )


def _below(source: SourceSettings, roots: Sequence[Path]) -> bool:
    fixed = source.address.partition("*")[0] if source.kind == "glob" else source.address
    place = os.path.realpath(fixed)
    return any(place == str(root) or place.startswith(f"{root}{os.sep}") for root in map(os.path.realpath, roots))


def _bad(name: str, message: str, code: str = "invalid_source") -> BadInput:
    return BadInput(f"{message}." if message[-1] not in ".?" else message, code=code, field=f"source.{name}")
