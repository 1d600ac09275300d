"""The rows of a dataset at one moment, as an input file: native lines with their images stored once."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orchestrator.datasets.packing import jsonl
from orchestrator.datasets.spec import Line
from orchestrator.intake.keeper import Keeper
from orchestrator.intake.pack import PackLimits, pack
from orchestrator.intake.pictures import Limits, Picture, inspect
from reasoning.errors import BadInput
from storage.settings import Settings

PURPOSE = "dataset"
"""Of the input files of scheduled runs: retention removes these, and never a file that somebody uploaded."""
SPOOL_BYTES = 8 * 2**20
"""Lines held in memory before they go to a temporary file."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The lines in an open temporary file, rewound."""

    stream: IO[bytes]
    size: int
    sha256: str


@contextmanager
def snapshot(
    lines: Iterable[Line], roots: Sequence[Path], keeper: Keeper, settings: Settings, beat: Callable[[], None]
) -> Iterator[Snapshot]:
    """Read all lines of a source, storing the images that they hold or name by path. `beat` is called meanwhile.

    Raises:
        BadInput: the source holds no row, or cannot be read to its end; what was stored by then stays unused.
    """
    images = Limits(settings.max_image_bytes, settings.max_image_pixels)
    limits = PackLimits(max_line_bytes=settings.max_line_bytes, max_bytes=settings.max_upload_bytes, images=images)

    taken: dict[str, Picture] = {}

    def upload(sha256: str, data: bytes, _media_type: str) -> None:
        taken[sha256] = picture = inspect(data, images, sha256)
        keeper.upload(picture, data)

    digest, size = hashlib.sha256(), 0
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool, closing(keeper):
        for piece in pack(jsonl(lines, keeper.known, upload, images), roots, keeper.known, upload, limits):
            keeper.record(list(taken.values()))
            taken.clear()
            spool.write(piece)
            digest.update(piece)
            size += len(piece)
            beat()
        if not size:
            raise BadInput("the dataset holds no row; nothing was run", code="empty_dataset", field="source")
        spool.seek(0)
        yield Snapshot(spool, size, digest.hexdigest())
