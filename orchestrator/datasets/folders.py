"""Folders and object prefixes of images with one question for all, and image folders with a table beside them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator.datasets.spec import Line, SourceSpec
from reasoning.errors import BadInput
from storage.objects import ObjectStore

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
METADATA_FILES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
"""A table beside images, as Hugging Face image folders have it: `file_name` and other columns."""
MAX_ID = 500


def metadata_file(folder: Path) -> Path | None:
    """The table of an image folder, if it has one."""
    return next((folder / name for name in METADATA_FILES if (folder / name).is_file()), None)


def image_lines(spec: SourceSpec) -> Iterator[Line]:
    """A line for each image below the folder, in the order of their paths, with the one question of `spec`."""
    folder = spec.location
    if not isinstance(folder, Path):
        raise BadInput("a single file is no folder of images", code="invalid_value", field="format")
    return _lines((str(path.relative_to(folder)) for path in _images(folder)), spec, prefix="")


def object_lines(objects: ObjectStore, prefix: str, spec: SourceSpec) -> Iterator[Line]:
    """A line for each image whose key begins with `prefix`."""
    names = (item.key for item in objects.list(prefix) if Path(item.key).suffix.lower() in IMAGE_SUFFIXES)
    return _lines(names, spec, prefix="object:")


def question_of(spec: SourceSpec) -> str:
    """The one question. Raises BadInput when there is none."""
    if not spec.question:
        raise BadInput(
            "a folder of images needs one question for all of them: --question TEXT",
            code="no_question",
            field="question",
        )
    return spec.question


def _lines(names: Iterable[str], spec: SourceSpec, prefix: str) -> Iterator[Line]:
    question = question_of(spec)
    for name in names:
        text = question.replace("{name}", Path(name).stem)
        yield {"custom_id": name[-MAX_ID:], "question": text, "images": [prefix + name]}


def _images(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(here) / name
