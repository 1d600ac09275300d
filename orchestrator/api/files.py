"""Uploaded files: streamed to disk as they arrive, then to the object store; never whole in memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import IO, Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from orchestrator import limits
from orchestrator.api.access import Operator, Viewer
from orchestrator.api.documents import file_document
from orchestrator.api.errors import NotFound, too_large
from orchestrator.api.services import Services, Use
from orchestrator.service import new_id
from reasoning.errors import BadInput
from storage import files
from storage.access import Caller
from storage.objects import ObjectStore, keys

router = APIRouter(prefix="/api/files", tags=["files"])

SPOOL_BYTES = 2**20
"""Held in memory before an upload goes to a temporary file."""
COPY_BYTES = 2**20
MAX_FIELDS = 16


@dataclass(frozen=True, slots=True)
class Received:
    """An upload at its end: an open temporary file, rewound."""

    stream: IO[bytes]
    filename: str
    size: int
    sha256: str


@router.post("")
async def upload(
    request: Request,
    use: Use,
    caller: Operator,
    filename: Annotated[str, Query(max_length=255, description="Name of a file sent as the raw body.")] = "input.jsonl",
) -> dict[str, Any]:
    """Store a file, sent as the raw body or as the part `file` of a multipart form."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=MAX_FIELDS) as form:
            part = form.get("file")
            if not isinstance(part, UploadFile):
                raise BadInput("the form has no part named file that holds a file", code="missing_file", field="file")
            return await run_in_threadpool(store, use, caller, _measured(part.file, part.filename or filename))
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
        received = await _spooled(request.stream(), spool, filename)
        return await run_in_threadpool(store, use, caller, received)


@router.get("/{file_id}")
def show(file_id: str, use: Use, caller: Viewer) -> dict[str, Any]:
    """One file."""
    return file_document(file_or_404(use, caller, file_id))


@router.get("/{file_id}/content", response_class=StreamingResponse)
def content(file_id: str, use: Use, caller: Viewer) -> StreamingResponse:
    """The bytes of a file."""
    row = file_or_404(use, caller, file_id)
    try:
        size = use.objects.size(row.object_key)
    except FileNotFoundError:
        raise NotFound("file", file_id) from None
    headers = {
        "content-length": str(size),
        "content-disposition": "attachment",
        "x-content-type-options": "nosniff",
    }
    chunks = pieces(use.objects, row.object_key)
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)


def pieces(objects: ObjectStore, key: str) -> Iterator[bytes]:
    """An object in parts. It is opened with the first: whoever wants the headers alone leaves nothing open."""
    with objects.open(key) as stream:
        while chunk := stream.read(COPY_BYTES):
            yield chunk


async def _spooled(chunks: AsyncIterator[bytes], spool: IO[bytes], filename: str) -> Received:
    digest, size = hashlib.sha256(), 0
    async for chunk in chunks:
        spool.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    spool.seek(0)
    return Received(spool, filename, size, digest.hexdigest())


def _measured(stream: IO[bytes], filename: str) -> Received:
    digest, size = hashlib.sha256(), 0
    while chunk := stream.read(COPY_BYTES):
        digest.update(chunk)
        size += len(chunk)
    stream.seek(0)
    return Received(stream, filename, size, digest.hexdigest())


def store(use: Services, caller: Caller, received: Received) -> dict[str, Any]:
    """Keep an upload as a file of the caller's project; returns its document.

    Raises:
        BadInput: it is empty, or the project's storage is used up.
        Refused: 413, it is larger than allowed.
    """
    if received.size > use.settings.max_upload_bytes:
        raise too_large(use.settings.max_upload_bytes)
    if not received.size:
        raise BadInput("the file is empty; send at least one line", code="empty_file", field="file")
    file_id = new_id("file")
    key = keys.upload(file_id)
    use.objects.put(key, received.stream, media_type="application/jsonl")
    try:
        with use.db.write() as conn:
            allowed = limits.lock_project(conn, caller.project_id)
            limits.check_storage(conn, caller.project_id, allowed, received.size)
            files.create(
                conn,
                id=file_id,
                project_id=caller.project_id,
                purpose="batch",
                filename=received.filename,
                bytes=received.size,
                sha256=received.sha256,
                object_key=key,
                now=use.now(),
                expires_at=None,
            )
            return file_document(files.get(conn, caller.project_id, file_id))
    except BaseException:
        use.objects.delete(key)
        raise


def file_or_404(use: Services, caller: Caller, file_id: str, field: str | None = None) -> Any:
    """The row of a file that is neither deleted nor expired. Raises NotFound, which names the `field` that asked."""
    with use.db.read() as conn:
        row = files.get(conn, caller.project_id, file_id)
    if row is None or (row.expires_at is not None and row.expires_at <= use.now()):
        raise NotFound("file", file_id, field=field)
    return row
