"""Validated lines in chunks that fit one transaction and a little memory, their images resolved."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from orchestrator.intake.records import AcceptedLine, LineError, RefusedLine, shorten
from orchestrator.intake.resolve import ImageResolver
from reasoning.errors import BadInput

CHUNK_LINES = 2000
"""Lines per transaction: long enough for throughput, short enough that others get their turn."""

CHUNK_BYTES = 8 * 2**20
"""Text of image references held at a time; data URIs are what makes lines large."""

Verdict = AcceptedLine | RefusedLine
Item = TypeVar("Item")


@dataclass(slots=True)
class Chunk:
    """Lines up to `last_line`, blank ones counted."""

    accepted: list[tuple[int, AcceptedLine, list[str]]] = field(default_factory=list)
    """Line number, line, content hashes of its images."""
    refused: list[tuple[int, RefusedLine]] = field(default_factory=list)
    last_line: int = 0


def in_chunks(lines: Iterable[tuple[int, Verdict]], *, after_line: int = 0) -> Iterator[list[tuple[int, Verdict]]]:
    """The lines after `after_line`, in groups of at most `CHUNK_LINES` and about `CHUNK_BYTES`."""
    group: list[tuple[int, Verdict]] = []
    size = 0
    for number, line in lines:
        if number <= after_line:
            continue
        group.append((number, line))
        if isinstance(line, AcceptedLine):
            size += sum(len(ref.value) for ref in line.images)
        if len(group) >= CHUNK_LINES or size >= CHUNK_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def ahead(items: Iterator[Item]) -> Generator[Item]:
    """The items, the next one made in a thread while the caller works on the last: one waits for a database, the
    other computes. An exception of `items` comes when all before it are used. Close it before what `items` reads from.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="intake-ahead") as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def resolve_chunk(group: list[tuple[int, Verdict]], resolver: ImageResolver) -> Chunk:
    """Read, check and store the images of a group; a line with an image that fails is refused."""
    found = resolver.resolve(ref for _, line in group if isinstance(line, AcceptedLine) for ref in line.images)
    chunk = Chunk(last_line=group[-1][0])
    for number, line in group:
        if isinstance(line, RefusedLine):
            chunk.refused.append((number, line))
            continue
        errors = []
        hashes = []
        for ref, field_name in zip(line.images, line.image_fields, strict=True):
            outcome = found[ref]
            if isinstance(outcome, BadInput):
                message = f"{field_name}: {outcome.message}"
                errors.append(LineError(number, field_name, outcome.code, shorten(message)))
            else:
                hashes.append(outcome)
        if errors:
            metadata = line.extra.get("metadata") or {}
            chunk.refused.append((number, RefusedLine(tuple(errors), line.custom_id, metadata)))
        else:
            chunk.accepted.append((number, line, hashes))
    return chunk
