"""Datasets that lie on the server: an uploaded table, or a prefix of the object store, turned into an input file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, islice
from typing import Any

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator import limits
from orchestrator.api.access import Operator, record
from orchestrator.api.bodies import JsonRoute
from orchestrator.api.documents import file_document
from orchestrator.api.files import file_or_404
from orchestrator.api.paging import DryRun
from orchestrator.api.services import Services, Use
from orchestrator.datasets import packing
from orchestrator.datasets.folders import object_lines, question_of
from orchestrator.datasets.source import open_source
from orchestrator.datasets.spec import OpenFile, Source, SourceSpec
from orchestrator.intake.keeper import OPEN_PREFIXES, BlobKeeper
from orchestrator.intake.pictures import Limits, Picture, inspect
from orchestrator.service import new_id
from reasoning.errors import BadInput
from storage import files
from storage.access import Caller
from storage.objects import keys

router = APIRouter(route_class=JsonRoute, prefix="/api/datasets", tags=["datasets"])

SAMPLE_LINES = 3


class NewDataset(BaseModel):
    """What to read. Give `file_id` or `object_prefix`."""

    model_config = ConfigDict(extra="forbid")

    file_id: str | None = Field(default=None, description="An uploaded file: JSONL, CSV, TSV, parquet, ...")
    object_prefix: str | None = Field(default=None, description=f"Begins with {' or '.join(OPEN_PREFIXES)}.")
    format: str = "auto"
    columns: dict[str, str | list[str]] = Field(default_factory=dict, description="Column by part; others are guessed.")
    question: str | None = Field(default=None, description="One question for every row.")
    limit: int | None = Field(default=None, ge=1, description="Rows at most.")

    @model_validator(mode="after")
    def _one_place(self) -> NewDataset:
        if (self.file_id is None) == (self.object_prefix is None):
            raise ValueError("give either file_id or object_prefix")
        return self


@router.post("")
def create(new: NewDataset, use: Use, caller: Operator, dry_run: DryRun = False) -> dict[str, Any]:
    """Turn a dataset into an input file, to be named by `POST /api/jobs`. A dry run shows what was understood."""
    with ExitStack() as stack:
        name, source = _opened(new, use, caller, stack)
        shown = {"object": "dataset", "format": source.format, "columns": source.mapping, "notes": list(source.notes)}
        if dry_run:
            head = list(islice(source.lines, SAMPLE_LINES))
            return {**shown, "sample": [_plain(line) for line in head], "file": None}
        row = _stored(use, caller, f"{name}.jsonl", packing.jsonl(source.lines, *_keeping(use, caller)))
    return {**shown, "sample": [], "file": file_document(row)}


def _opened(new: NewDataset, use: Services, caller: Caller, stack: ExitStack) -> tuple[str, Source]:
    given = {"format": new.format, "columns": new.columns, "question": new.question, "limit": new.limit}
    if new.object_prefix is not None:
        if not new.object_prefix.startswith(OPEN_PREFIXES):
            raise BadInput(
                f"object_prefix must begin with {' or '.join(OPEN_PREFIXES)}: what lies elsewhere is not for datasets",
                code="image_outside_roots",
                field="object_prefix",
            )
        spec = SourceSpec(location=OpenFile(new.object_prefix, io.BytesIO()), **given)  # type: ignore[arg-type]
        question_of(spec)
        lines = islice(object_lines(use.objects, new.object_prefix, spec), new.limit)
        first = next(lines, None)
        if first is None:
            raise BadInput(
                f"the object store holds no image below {new.object_prefix}",
                code="empty_dataset",
                field="object_prefix",
            )
        return "objects", Source("objects", {"question": f"text: {new.question}"}, chain([first], lines))
    row = file_or_404(use, caller, new.file_id or "", "file_id")
    stream = stack.enter_context(use.objects.open(row.object_key))
    return row.filename, open_source(SourceSpec(location=OpenFile(row.filename, stream), **given))  # type: ignore[arg-type]


def _keeping(use: Services, caller: Caller) -> tuple[Any, Any]:
    keeper = BlobKeeper(use.db, use.objects, caller.project_id, use.now)
    bounds = Limits(use.settings.max_image_bytes, use.settings.max_image_pixels)

    def upload(sha256: str, data: bytes, _media_type: str) -> None:
        picture: Picture = inspect(data, bounds, sha256)
        keeper.upload(picture, data)
        keeper.record([picture])

    return keeper.known, upload


def _stored(use: Services, caller: Caller, filename: str, chunks: Iterable[bytes]) -> Any:
    digest, size = hashlib.sha256(), 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            yield chunk

    file_id = new_id("file")
    key = keys.upload(file_id)
    use.objects.put(key, counted(), media_type="application/jsonl")
    try:
        with use.db.write() as conn:
            allowed = limits.lock_project(conn, caller.project_id)
            limits.check_storage(conn, caller.project_id, allowed, size)
            now = use.now()
            files.create(
                conn,
                id=file_id,
                project_id=caller.project_id,
                purpose="batch",
                filename=filename[-255:],
                bytes=size,
                sha256=digest.hexdigest(),
                object_key=key,
                now=now,
            )
            record(conn, caller, now, "dataset.import", file_id)
            return files.get(conn, caller.project_id, file_id)
    except BaseException:
        use.objects.delete(key)
        raise


def _plain(line: dict[str, Any]) -> Any:
    """A line as JSON; the bytes of an image are told by their number."""
    return orjson.loads(orjson.dumps(line, default=lambda value: f"({len(value)} bytes)"))
