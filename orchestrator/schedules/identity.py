"""What tells the rows of a dataset apart from run to run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from orchestrator.datasets.spec import Line, Source
from reasoning.errors import BadInput


def identified(source: Source, identity: Sequence[str]) -> Iterator[Line]:
    """The lines with ids that stay when rows are added, removed or moved.

    The named columns make the id. Without any, the id that the source gives is taken; a table without an id
    column gets ids from what its rows ask, since a row's number changes with the rows before it.
    """
    if identity:
        return _by_columns(source, identity)
    columns = source.mapping
    return _by_content(source.lines) if "images" in columns and "custom_id" not in columns else source.lines


def _by_columns(source: Source, identity: Sequence[str]) -> Iterator[Line]:
    parts = {column: part for part, column in source.mapping.items() if isinstance(column, str)}
    for number, line in enumerate(source.lines, start=1):
        if set(line) == {"error"}:
            yield line
            continue
        metadata = line.get("metadata") or {}
        values = [metadata.get(name, line.get(parts.get(name, name))) for name in identity]
        for name, value in zip(identity, values, strict=True):
            if value in (None, ""):
                raise BadInput(
                    f'row {number} has no "{name}", which is to tell rows apart; choose other identity columns',
                    code="identity_missing",
                    field="identity",
                )
        yield {**line, "custom_id": "/".join(map(str, values))}


def _by_content(lines: Iterator[Line]) -> Iterator[Line]:
    seen: dict[str, int] = {}
    for line in lines:
        if set(line) == {"error"}:
            yield line
            continue
        asked = [line.get(name) for name in ("question", "images", "choices", "context")]
        name = hashlib.sha256(orjson.dumps(asked, default=_digest)).hexdigest()[:20]
        seen[name] = seen.get(name, 0) + 1
        yield {**line, "custom_id": name if seen[name] == 1 else f"{name}-{seen[name]}"}


def _digest(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)
