"""On the client's side: a dataset as the bytes of an input file, its images sent along first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.datasets import packing
from orchestrator.datasets.spec import Source, SourceSpec
from orchestrator.intake.pack import Has, Upload, pack


def packed(spec: SourceSpec, source: Source, roots: Sequence[Path], has: Has, upload: Upload) -> Iterator[bytes]:
    """The lines of an opened source with every local image sent and named by its hash.

    `roots` are folders beside the dataset's own that image paths may lead into.

    Raises:
        BadInput: the data breaks off or an image changed while it was read.
    """
    folders = [spec.folder, *roots] if spec.folder is not None else list(roots)
    return pack(packing.jsonl(source.lines, has, upload), folders, has, upload)
