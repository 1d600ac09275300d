"""From what a caller hands over to the bytes of an input file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.datasets.sending import packed
from orchestrator.datasets.source import open_source
from orchestrator.datasets.spec import Source as OpenedSource
from orchestrator.datasets.spec import SourceSpec
from orchestrator.intake.pack import Has, Upload

Source = str | Path | Iterable[Mapping[str, Any]]
"""A file or folder of any format, or lines: `{"custom_id", "question", "images"}`, whose images may be bytes."""


def name_of(source: Source) -> str:
    """What the job is called unless the caller says so."""
    return Path(source).name if isinstance(source, str | Path) else "lines"


def input_file(
    source: Source, spec: Mapping[str, Any], roots: Sequence[Path], has: Has, upload: Upload
) -> Iterator[bytes]:
    """The lines of the source in pieces; images that the server lacks are sent on the way.

    `spec` holds fields of `SourceSpec`: format, columns, question, split, limit.
    """
    if isinstance(source, str | Path):
        wanted = SourceSpec(location=Path(source), **spec)
        opened = open_source(wanted)
    else:
        wanted = SourceSpec(location=Path.cwd(), **spec)
        opened = OpenedSource("lines", {}, (dict(line) for line in source))
    return packed(wanted, opened, roots, has, upload)
