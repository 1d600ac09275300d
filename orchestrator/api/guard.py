"""What every request passes first: an id, a check of the host it asked for, and a limit to its size.

HEAD is answered here for every route that answers GET.
"""

from __future__ import annotations

import re
import secrets

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.errors import REQUEST_ID, Refused, envelope, too_large
from storage.settings import Settings

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})

UPLOAD_PATHS = ("/api/files", "/v1/files", "/new-job")
"""Routes that take files; all others take one record."""

FORM_BYTES = 2**16
"""What a form may add to its file, whose own size the routes check."""

_CLIENT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Guard:
    """ASGI middleware around the whole application.

    A page of another site can make a browser talk to a loopback address under its own name (DNS rebinding);
    on loopback only requests that name a loopback host are answered.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._hosts = LOOPBACK_NAMES | {settings.host} if settings.loopback else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["root_path"] = self._settings.path_prefix.rstrip("/")
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        # Every route that answers GET is asked for HEAD too, and an address signed for GET is of no use there.
        scope.setdefault("state", {}).update(request_id=request_id, headers_alone=scope["method"] == "HEAD")
        answer = _with_id(send, request_id)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            response = envelope(Request(scope), refusal.status_code, refusal.detail, code=refusal.code)
            await response(scope, receive, answer)
            return
        body = _limited(receive, self._limit(scope["path"]))
        if scope["method"] == "HEAD":
            await _head(self._app, scope, body, answer)
        else:
            await self._app(scope, body, answer)

    def _refusal(self, scope: Scope, headers: Headers) -> Refused | None:
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            return Refused(421, "this server answers on its loopback address alone; ask for 127.0.0.1", "bad_host")
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            return Refused(400, "the address holds a null character, which no name here has", "bad_address")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._limit(scope["path"]):
            return too_large(self._limit(scope["path"]))
        return None

    def _limit(self, path: str) -> int:
        if path.rstrip("/").endswith(UPLOAD_PATHS):
            return self._settings.max_upload_bytes + FORM_BYTES
        return max(self._settings.max_line_bytes, self._settings.max_image_bytes)


def _host_name(host: str) -> str:
    """The host without its port; IPv6 addresses stay in their brackets."""
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0].lower()


def _request_id(headers: Headers) -> str:
    given = headers.get(REQUEST_ID, "")
    return given if _CLIENT_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def _with_id(send: Send, request_id: str) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)[REQUEST_ID] = request_id
        await send(message)

    return answer


async def _head(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """What GET would answer, without its body: the route is left once its headers are known."""
    with anyio.CancelScope() as rest:

        async def headers_alone(message: Message) -> None:
            if message["type"] != "http.response.start":
                return
            await send(message)
            await send({"type": "http.response.body", "body": b""})
            rest.cancel()

        await app({**scope, "method": "GET"}, receive, headers_alone)


def _limited(receive: Receive, limit: int) -> Receive:
    """The body as it arrives, cut off with an error when it grows past `limit` bytes, whatever length it claimed."""
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise too_large(limit)
        return message

    return counted
