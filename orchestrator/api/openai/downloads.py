"""Sending a file: a stream, a part of it, or the address where an S3 server hands it out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.responses import RedirectResponse, Response, StreamingResponse

from orchestrator.api.errors import NotFound, Refused
from orchestrator.api.services import Services

COPY_BYTES = 2**20
REDIRECT_ABOVE_BYTES = 16 * 2**20
"""Smaller files come through us: one connection is faster than two."""
REDIRECT_S = 3600.0
"""How long the address of a redirect works."""

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` up to but not including `end`."""

    start: int
    end: int


def send(use: Services, row: Any, range_header: str | None, *, headers_alone: bool = False) -> Response:
    """The bytes of a file, or those of a `Range` header.

    For `headers_alone` there is no redirect: an S3 server takes an address for the one method it was signed for.

    Raises:
        NotFound: the object is gone.
        Refused: 416, no byte of the range is there.
    """
    try:
        size = use.objects.size(row.object_key)
    except FileNotFoundError:
        raise NotFound("file", row.id) from None
    span = span_of(range_header, size)
    address = None if headers_alone else _address(use, row, size)
    if address is not None:
        return RedirectResponse(address, 307)
    headers = {
        "content-disposition": "attachment",
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
        "content-length": str(size if span is None else span.end - span.start),
    }
    if span is None:
        chunks = _copied(use, row, Span(0, size))
        return StreamingResponse(chunks, 200, headers, media_type="application/octet-stream")
    headers["content-range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    return StreamingResponse(_copied(use, row, span), 206, headers, media_type="application/octet-stream")


def span_of(header: str | None, size: int) -> Span | None:
    """The single range that a header asks for; None for the whole, also where the header is of another form.

    Raises:
        Refused: 416, the range starts past the end.
    """
    found = _RANGE.fullmatch((header or "").strip())
    if found is None or not (found[1] or found[2]):
        return None
    if found[1]:
        start, last = int(found[1]), int(found[2]) if found[2] else size - 1
        if found[2] and last < start:
            return None
    else:
        start, last = max(0, size - int(found[2])), size - 1
    if start >= size:
        message = f"the file has {size} bytes; ask for a range inside it"
        raise Refused(416, message, "range_not_satisfiable", {"content-range": f"bytes */{size}"})
    return Span(start, min(last, size - 1) + 1)


def _address(use: Services, row: Any, size: int) -> str | None:
    wanted = use.settings.redirect_downloads
    if wanted is None:
        # An endpoint of one's own is often an address that only the servers among themselves can reach.
        wanted = use.settings.s3_endpoint_url is None
    if not wanted or size <= REDIRECT_ABOVE_BYTES:
        return None
    return use.objects.url(row.object_key, REDIRECT_S, filename=row.filename)


def _copied(use: Services, row: Any, span: Span) -> Iterator[bytes]:
    # Opened when the first byte is asked for: whoever wants the headers alone leaves nothing open.
    with use.objects.open(row.object_key) as stream:
        stream.seek(span.start)
        left = span.end - span.start
        while left and (chunk := stream.read(min(COPY_BYTES, left))):
            left -= len(chunk)
            yield chunk
