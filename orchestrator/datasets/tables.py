"""CSV and TSV, VLMEvalKit's TSV among them, row by row."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from orchestrator.datasets.cells import decoded
from orchestrator.datasets.spec import Row
from orchestrator.intake.unpack import unpack
from reasoning.errors import BadInput

MAX_CELL = 64 * 2**20
"""Characters of a cell: images stand in them as base64."""
MAX_BYTES = 200 * 2**30
MAX_REFERENCE = 64
"""Characters of a cell that names the row whose image it shares; an image is longer."""
READ_BYTES = 2**20

Open = Callable[[], BinaryIO]
"""Opens the file anew, from its start."""


def header(open_file: Open, delimiter: str) -> list[str]:
    """The column names."""
    with _rows(open_file, delimiter) as rows:
        return next(rows, [])


def read_table(open_file: Open, delimiter: str) -> Iterator[Row]:
    """The rows by column name. Raises BadInput on a row with more cells than there are columns."""
    with _rows(open_file, delimiter) as rows:
        names = next(rows, [])
        for number, cells in enumerate(rows, start=2):
            if len(cells) > len(names):
                raise BadInput(
                    f"row {number} has {len(cells)} cells and the header {len(names)}; check the delimiter and quotes.",
                    code="invalid_table",
                    line=number,
                )
            if cells:
                yield dict(zip(names, cells, strict=False))


def read_vlmevalkit(open_file: Open, delimiter: str = "\t") -> Iterator[Row]:
    """Rows of a VLMEvalKit table: an `image` cell may name another row by its index to share its image.

    Shared images wait in a temporary file, as the row that has one may stand before or after.
    """
    shared = _shared_indices(open_file, delimiter)
    with tempfile.TemporaryFile() as spool:
        places = _spooled(open_file, delimiter, shared, spool) if shared else {}
        for row in read_table(open_file, delimiter):
            cell = str(row.get("image") or "")
            if not _is_reference(cell):
                yield row
                continue
            place = places.get(cell.strip())
            if place is None:
                message = f'the image of row {row.get("index")} is that of row "{cell}", which has none.'
                yield {**row, "image": [{"error": {"code": "image_missing", "message": message}}]}
                continue
            spool.seek(place[0])
            yield {**row, "image": spool.read(place[1])}


def is_vlmevalkit(names: list[str]) -> bool:
    """Whether these are the columns of a VLMEvalKit table."""
    return {"index", "question"} <= set(names) and ("image" in names or "image_path" in names)


def _shared_indices(open_file: Open, delimiter: str) -> set[str]:
    cells = (str(row.get("image") or "") for row in read_table(open_file, delimiter))
    return {cell.strip() for cell in cells if _is_reference(cell)}


def _spooled(open_file: Open, delimiter: str, wanted: set[str], spool: Any) -> dict[str, tuple[int, int]]:
    places: dict[str, tuple[int, int]] = {}
    for row in read_table(open_file, delimiter):
        index, cell = str(row.get("index") or "").strip(), str(row.get("image") or "")
        if index in wanted and cell and not _is_reference(cell):
            data = decoded(cell, "image")
            places[index] = (spool.tell(), len(data))
            spool.write(data)
    return places


def _is_reference(cell: str) -> bool:
    return 0 < len(cell) <= MAX_REFERENCE and cell.strip().isdigit()


@contextmanager
def _rows(open_file: Open, delimiter: str) -> Iterator[Iterator[list[str]]]:
    csv.field_size_limit(MAX_CELL)
    with open_file() as stream:
        chunks = iter(lambda: stream.read(READ_BYTES), b"")
        raw = io.BufferedReader(_Chunked(unpack(chunks, MAX_BYTES)), READ_BYTES)
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        try:
            yield _checked(csv.reader(text, delimiter=delimiter))
        finally:
            text.detach()


def _checked(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from rows
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadInput(f"the table cannot be read: {error}. Save it as UTF-8.", code="invalid_table") from error


class _Chunked(io.RawIOBase):
    """Pieces of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
