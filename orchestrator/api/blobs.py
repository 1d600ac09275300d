"""Images by content hash: ask which are not stored, send those, then name them in lines as `blob:SHA256`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Request
from starlette.concurrency import run_in_threadpool

from orchestrator.api.access import Operator
from orchestrator.api.bodies import JsonRoute
from orchestrator.api.services import Services, Use
from orchestrator.intake.keeper import BlobKeeper
from orchestrator.intake.pictures import Limits, digest, inspect
from reasoning.errors import BadInput
from storage.access import Caller

router = APIRouter(route_class=JsonRoute, prefix="/api/blobs", tags=["blobs"])

ASKED_AT_ONCE = 1000
"""Hashes of one question at most."""

Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="Hexadecimal SHA-256 of the bytes.")]
Hashes = Annotated[
    list[Annotated[str, Body(pattern="^[0-9a-f]{64}$")]], Body(embed=True, min_length=1, max_length=ASKED_AT_ONCE)
]


@router.post("/missing")
def missing(sha256: Hashes, use: Use, caller: Operator) -> dict[str, Any]:
    """Which of these images are not stored yet, in the order asked."""
    stored = _keeper(use, caller).known(sha256)
    return {"missing": [value for value in dict.fromkeys(sha256) if value not in stored]}


@router.put("/{sha256}")
async def put_blob(sha256: Sha256, request: Request, use: Use, caller: Operator) -> dict[str, Any]:
    """Store an image: the body is its encoded bytes. Sending one that is stored changes nothing."""
    data = await request.body()
    return await run_in_threadpool(_store, use, caller, sha256, data)


def _store(use: Services, caller: Caller, sha256: str, data: bytes) -> dict[str, Any]:
    if digest(data) != sha256:
        message = "the bytes do not have the hash in the address; send them again unchanged"
        raise BadInput(message, code="hash_mismatch", field="sha256")
    picture = inspect(data, Limits(use.settings.max_image_bytes, use.settings.max_image_pixels), sha256)
    keeper = _keeper(use, caller)
    if not keeper.known([sha256]):
        keeper.upload(picture, data)
        keeper.record([picture])
    return {"sha256": sha256, "bytes": len(data), "media_type": picture.media_type}


def _keeper(use: Services, caller: Caller) -> BlobKeeper:
    return BlobKeeper(use.db, use.objects, caller.project_id, use.now)
