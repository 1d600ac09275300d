"""Receiving a file: from the request straight into the object store, hashed on the way, never whole in memory.

An upload that breaks off leaves nothing behind: the object store keeps no object whose source raised, and the
row is written last. The same bytes sent again within minutes are the same file, as clients repeat an upload
whose answer was lost (section 9.10).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from anyio import CapacityLimiter, from_thread
from starlette.requests import Request

from orchestrator import limits
from orchestrator.api.errors import too_large
from orchestrator.api.openai.multipart import Part, boundary_of, read_parts
from orchestrator.api.services import Services
from orchestrator.service import new_id
from reasoning.errors import BadInput
from storage import files
from storage.access import Caller
from storage.objects import keys

PURPOSES = ("batch",)
ANCHOR = "created_at"
MIN_EXPIRY_S, MAX_EXPIRY_S = 3600, 30 * 86400
REPEATED_WITHIN_S = 600.0
"""The same content again within this time is taken for a repeated upload."""
MAX_FILENAME = 255
UPLOADS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class _Stored:
    file_id: str
    key: str
    filename: str
    size: int
    sha256: str


def turns(request: Request) -> CapacityLimiter:
    """Places for uploads in hand. They have threads of their own: slow senders must not keep other requests waiting."""
    state = request.app.state
    if not hasattr(state, "uploads"):
        state.uploads = CapacityLimiter(UPLOADS_AT_ONCE)
    found: CapacityLimiter = state.uploads
    return found


def body_of(request: Request) -> Iterator[bytes]:
    """The body of the request as it arrives, read from a worker thread."""
    stream = request.stream()

    async def following() -> bytes:
        return await anext(stream, b"")

    while chunk := from_thread.run(following):
        yield chunk


def receive(use: Services, caller: Caller, request: Request) -> Any:
    """The row of the uploaded file. Runs in a worker thread.

    Raises:
        BadInput: no form, no file, an empty one, a wrong purpose or expiry, or the project's storage is used up.
        Refused: 413, the file is larger than allowed.
    """
    fields: dict[str, str] = {}
    stored: _Stored | None = None
    try:
        for part in read_parts(body_of(request), boundary_of(request.headers.get("content-type", ""))):
            if part.filename is None:
                fields[part.name] = part.text()
            elif part.name == "file" and stored is None:
                stored = _store(use, part)
        if stored is None:
            raise BadInput(
                "the form has no part named file that holds a file", code="missing_required_parameter", field="file"
            )
        expiry_s = _checked(fields)
        if not stored.size:
            raise BadInput("the file is empty; send at least one line", code="empty_file", field="file")
        row = _record(use, caller, stored, expiry_s)
    except BaseException:
        if stored is not None:
            use.objects.delete(stored.key)
        raise
    if row.object_key != stored.key:
        use.objects.delete(stored.key)  # these bytes are stored already
    return row


def _store(use: Services, part: Part) -> _Stored:
    digest, size = hashlib.sha256(), 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for chunk in part.chunks:
            digest.update(chunk)
            size += len(chunk)
            if size > use.settings.max_upload_bytes:
                raise too_large(use.settings.max_upload_bytes)
            yield chunk

    file_id = new_id("file")
    key = keys.upload(file_id)
    use.objects.put(key, counted(), media_type="application/jsonl")
    return _Stored(file_id, key, clean_name(part.filename or ""), size, digest.hexdigest())


def _record(use: Services, caller: Caller, stored: _Stored, expiry_s: int | None) -> Any:
    now = use.now()
    expires_at = None if expiry_s is None else now + expiry_s
    with use.db.write() as conn:
        allowed = limits.lock_project(conn, caller.project_id)
        same = files.find_by_content(conn, caller.project_id, stored.sha256, PURPOSES[0])
        if same is not None and _is_repeated(same, stored, expiry_s, now):
            return same
        limits.check_storage(conn, caller.project_id, allowed, stored.size)
        files.create(
            conn,
            id=stored.file_id,
            project_id=caller.project_id,
            purpose=PURPOSES[0],
            filename=stored.filename,
            bytes=stored.size,
            sha256=stored.sha256,
            object_key=stored.key if same is None else same.object_key,
            now=now,
            expires_at=expires_at,
        )
        return files.get(conn, caller.project_id, stored.file_id)


def _is_repeated(same: Any, stored: _Stored, expiry_s: int | None, now: float) -> bool:
    own = None if same.expires_at is None else round(same.expires_at - same.created_at)
    return same.filename == stored.filename and own == expiry_s and now - same.created_at < REPEATED_WITHIN_S


def clean_name(name: str) -> str:
    """The base name without control characters; a file without one is called `upload`."""
    base = PurePosixPath(name.replace("\\", "/")).name
    return "".join(letter for letter in base if letter.isprintable())[:MAX_FILENAME] or "upload"


def _checked(fields: dict[str, str]) -> int | None:
    """Seconds until the file expires, or None. Raises BadInput on a bad field."""
    purpose = fields.get("purpose")
    if purpose is None:
        raise BadInput('purpose is missing; write "batch"', code="missing_required_parameter", field="purpose")
    if purpose not in PURPOSES:
        raise BadInput(
            f'files of the purpose "{purpose[:40]}" are not kept here; use "batch"',
            code="invalid_value",
            field="purpose",
        )
    if "expires_after" in fields:
        raise BadInput(
            "write the expiry as two parts, expires_after[anchor] and expires_after[seconds]",
            code="invalid_value",
            field="expires_after",
        )
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    return checked_expiry(anchor, seconds)


def checked_expiry(anchor: str | None, seconds: str | int | None) -> int:
    """Seconds after creation at which a file expires. Raises BadInput."""
    if anchor != ANCHOR:
        raise BadInput(f'expires_after.anchor must be "{ANCHOR}"', code="invalid_value", field="expires_after[anchor]")
    try:
        value = int(seconds if seconds is not None else "")
    except ValueError:
        value = 0
    if not MIN_EXPIRY_S <= value <= MAX_EXPIRY_S:
        raise BadInput(
            f"expires_after.seconds must be a whole number from {MIN_EXPIRY_S} to {MAX_EXPIRY_S}",
            code="invalid_value",
            field="expires_after[seconds]",
        )
    return value
