"""Scripts and style sheets: shipped in the package, named by their content, nothing loaded from elsewhere."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from mimetypes import guess_type

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

FOR_EVER = "public, max-age=31536000, immutable"


class Assets:
    """The files of `static/`, read once."""

    def __init__(self) -> None:
        folder = files("orchestrator.web").joinpath("static")
        self._files = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}
        self._digests = {name: hashlib.sha256(data).hexdigest()[:12] for name, data in self._files.items()}

    def digest(self, name: str) -> str:
        """Short hash of a file's content: part of its address, so that browsers may keep it for ever."""
        return self._digests[name]

    async def serve(self, request: Request) -> Response:
        """Answer with a file. No login: nothing here is secret."""
        name = request.path_params["name"]
        data = self._files.get(name)
        if data is None:
            raise HTTPException(404)
        current = request.query_params.get("v") == self._digests[name]
        media_type = guess_type(name)[0] or "application/octet-stream"
        headers = {"cache-control": FOR_EVER if current else "no-cache", "x-content-type-options": "nosniff"}
        return Response(data, headers=headers, media_type=media_type)
