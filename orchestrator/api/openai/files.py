"""`/v1/files`: upload, list, show, download, delete (section 9.2)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from orchestrator import limits
from orchestrator.api.access import Operator, Viewer, record
from orchestrator.api.errors import NotFound
from orchestrator.api.files import file_or_404
from orchestrator.api.openai import downloads, uploads
from orchestrator.api.openai.objects import file_object, list_object
from orchestrator.api.services import Use
from storage import files

router = APIRouter(prefix="/v1/files", tags=["openai"])

MAX_PAGE = 10_000

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["purpose", "file"],
                    "properties": {
                        "purpose": {"type": "string", "enum": list(uploads.PURPOSES)},
                        "file": {"type": "string", "format": "binary"},
                        "expires_after[anchor]": {"type": "string", "enum": [uploads.ANCHOR]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": uploads.MIN_EXPIRY_S,
                            "maximum": uploads.MAX_EXPIRY_S,
                        },
                    },
                }
            }
        },
    }
}


@router.post("", openapi_extra=_FORM)
async def upload(request: Request, use: Use, caller: Operator) -> dict[str, Any]:
    """Store a file: a multipart form with `purpose`, `file` and perhaps `expires_after`, in any order."""
    received = await to_thread.run_sync(uploads.receive, use, caller, request, limiter=uploads.turns(request))
    return file_object(received)


@router.get("")
def list_files(
    use: Use,
    caller: Viewer,
    *,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Entries at most.")] = MAX_PAGE,
    after: Annotated[str | None, Query(max_length=100, description="Id of the last entry seen.")] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="By time of creation.")] = "desc",
    purpose: Annotated[str | None, Query(max_length=40)] = None,
) -> dict[str, Any]:
    """Files of the project."""
    with use.db.read() as conn:
        rows = files.list_page(
            conn, caller.project_id, purpose=purpose, after=after, limit=limit + 1, newest_first=order == "desc"
        )
    return list_object(map(file_object, rows), limit=limit)


@router.get("/{file_id}")
def show(file_id: str, use: Use, caller: Viewer) -> dict[str, Any]:
    """One file."""
    return file_object(file_or_404(use, caller, file_id))


@router.get("/{file_id}/content", response_class=StreamingResponse)
def content(file_id: str, request: Request, use: Use, caller: Viewer) -> Response:
    """The bytes of a file, or a range of them."""
    row, wanted = file_or_404(use, caller, file_id), request.headers.get("range")
    return downloads.send(use, row, wanted, headers_alone=request.state.headers_alone)


@router.delete("/{file_id}")
def delete(file_id: str, use: Use, caller: Operator) -> dict[str, Any]:
    """Delete a file. Jobs that have read it keep their results."""
    now = use.now()
    with use.db.write() as conn:
        limits.lock_project(conn, caller.project_id)
        row = files.delete(conn, caller.project_id, file_id, now)
        if row is None:
            raise NotFound("file", file_id)
        record(conn, caller, now, "file.delete", file_id)
        shared = files.in_use(conn, [row.object_key])
    if not shared:
        use.objects.delete(row.object_key)
    return {"id": file_id, "object": "file", "deleted": True}
