"""The user's other columns beside ours in joined results: under which names they come back, and of which types.

A line keeps them as its metadata. A name of ours is not theirs: such a column comes back as `input_NAME`, and so does
one that is called `input_NAME` already, so that two columns never meet under one name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import select

from orchestrator.datasets.numbers import INT64
from storage.database import Database
from storage.tables import Query

_QUERIES = Query.__table__

OURS = frozenset((
    "line", "custom_id", "status", "answer", "error", "error_code", "error_message", "usage", "degraded_reason",
    "format_ok", "trace", "stages", "question", "choices", "images", "context", "expected", "prompt_tokens",
    "generated_tokens", "kept_tokens", "discarded_tokens", "judged_tokens", "engine_seconds",
))  # fmt: skip
"""Names of ours in any of the forms: a column has the same name in all of them."""
PREFIX = "input_"
PACKED = "metadata"
MAX_COLUMNS = 1000
"""Above this the lines hold free data rather than a table, and it comes back as one column of JSON."""
PAGE = 1000


@dataclass(slots=True)
class Kind:
    """What the values of a column are: the names of their JSON types, and what the entries of lists are."""

    seen: set[str] = field(default_factory=set)
    entries: Kind | None = None

    def meet(self, value: Any) -> None:
        """Take a value into account; null fits everything."""
        if value is None:
            return
        name = _type_name(value)
        self.seen.add(name)
        if name == "list":
            self.entries = self.entries or Kind()
            for entry in value:
                self.entries.meet(entry)

    def arrow(self) -> Any:
        """The Arrow type that holds all of them; text where nothing narrower does."""
        import pyarrow as pa

        if self.entries is not None and self.seen == {"list"}:
            return pa.list_(self.entries.arrow())
        return {"bool": pa.bool_, "int": pa.int64, "float": pa.float64}.get(self._scalar, pa.string)()

    def fitted(self, value: Any) -> Any:
        """The value as `arrow` takes it: JSON where the column is text and the value is not."""
        if value is None:
            return None
        if self.entries is not None and self.seen == {"list"}:
            return [self.entries.fitted(entry) for entry in value]
        if self._scalar == "float":
            return float(value)
        return value if self._scalar != "str" or isinstance(value, str) else orjson.dumps(value).decode()

    @property
    def _scalar(self) -> str:
        if self.seen == {"int", "float"}:
            return "float"
        only = next(iter(self.seen)) if len(self.seen) == 1 else "str"
        return only if only in ("bool", "int", "float") else "str"


@dataclass(frozen=True, slots=True)
class OwnColumns:
    """The user's columns of a job in the order of their first appearance, by the name that they come back under."""

    kinds: Mapping[str, Kind]
    packed: bool = False
    """Whether there were too many, so that they share one column of JSON."""

    def row(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a line in these columns; a line need not have all."""
        return {PACKED: orjson.dumps(metadata).decode()} if self.packed else renamed(metadata)


NO_COLUMNS = OwnColumns({})


def renamed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a line by the names that they come back under."""
    return {_name(name): value for name, value in metadata.items()}


def spread(record: Mapping[str, Any]) -> dict[str, Any]:
    """A joined record with the user's columns beside ours."""
    found = dict(record)
    return found | renamed(found.pop("metadata", {}))


def columns_of(metadata: Iterable[Mapping[str, Any]]) -> OwnColumns:
    """The columns that the lines have, all of them looked at."""
    kinds: dict[str, Kind] = {}
    for fields in metadata:
        for name, value in renamed(fields).items():
            kinds.setdefault(name, Kind()).meet(value)
        if len(kinds) > MAX_COLUMNS:
            return OwnColumns({PACKED: Kind({"str"})}, packed=True)
    return OwnColumns(kinds)


def metadata_of(db: Database, job_id: str) -> Iterator[Mapping[str, Any]]:
    """The metadata of every line, also of those that have not ended: a file is begun with all columns it will have."""
    line = 0
    while True:
        with db.read() as conn:
            found = _QUERIES.c.body["metadata"].label("metadata")  # by the database: the rest of a body is not needed
            statement = select(_QUERIES.c.line, found).where(_QUERIES.c.job_id == job_id)
            rows = conn.execute(statement.where(_QUERIES.c.line > line).order_by(_QUERIES.c.line).limit(PAGE)).all()
        if not rows:
            return
        yield from (row.metadata or {} for row in rows)
        line = rows[-1].line


@lru_cache(maxsize=MAX_COLUMNS)
def _name(name: str) -> str:
    bare = name
    while bare.startswith(PREFIX):
        bare = bare.removeprefix(PREFIX)
    return PREFIX + name if bare in OURS else name


def _type_name(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value not in INT64:
        return "wide"  # fits no whole-number column that readers know; text keeps its digits
    return type(value).__name__
