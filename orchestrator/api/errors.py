"""One error envelope on every route, as clients of hosted APIs read it: `{"error": {message, type, param, code}}`.

Nothing of the inside leaks: a defect of ours is logged with its request id and answered with that id alone.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from reasoning.errors import BadInput, StagebeamError, Transient
from storage.errors import StoreFull

log = structlog.get_logger()

REQUEST_ID = "x-request-id"
RETRY_AFTER_S = 2
"""What a client is told to wait after a transient failure."""

_BY_CODE = {
    "not_found": 404,
    "file_not_found": 404,
    "job_ended": 409,
    "job_running": 409,
    "nothing_to_retry": 409,
    "conflict": 409,
    "storage_limit_exceeded": 403,
    "model_not_found": 404,
    "results_removed": 410,
    "too_large": 413,
    "body_too_large": 413,
}
"""Status of input errors by their code; any other is 400."""

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}

_WORDS = {404: "not_found", 405: "method_not_allowed"}


class Refused(HTTPException):
    """A request that is turned down before it reaches its route."""

    def __init__(
        self, status: int, message: str, code: str, headers: dict[str, str] | None = None, *, param: str | None = None
    ) -> None:
        super().__init__(status, message, headers)
        self.code = code
        self.param = param


def too_large(limit: int) -> Refused:
    """What a body or file above a limit is turned down with."""
    return Refused(413, f"this is larger than {limit} bytes; send less, or raise the limit", "body_too_large")


class NotFound(BadInput):
    """There is no such thing in the caller's project; what another project has looks the same."""

    def __init__(self, kind: str, name: object, *, field: str | None = None) -> None:
        super().__init__(f'there is no {kind} "{name}" in this project', code="not_found", field=field or kind)


def envelope(
    request: Request,
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    details: Sequence[dict[str, Any]] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """The answer of a request that failed. `details` lists every reason where there are several."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
    if details:
        error["details"] = list(details)
    request_id = getattr(request.state, "request_id", "")
    return JSONResponse({"error": error}, status, {**(headers or {}), REQUEST_ID: request_id})


def install(app: FastAPI) -> None:
    """Answer every kind of failure of `app` with the envelope."""
    app.add_exception_handler(BadInput, _bad_input)
    app.add_exception_handler(Transient, _transient)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(StagebeamError, _defect)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(OSError, _system)
    app.add_exception_handler(Exception, _defect)


async def _bad_input(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BadInput)  # noqa: S101 - Starlette hands over what it was registered for
    status = _BY_CODE.get(error.code, 400)
    return envelope(request, status, error.message, code=error.code, param=error.field)


async def _transient(request: Request, error: Exception) -> JSONResponse:
    log.warning("A store did not answer.", action="api.transient", error=str(error), path=request.url.path)
    if isinstance(error, StoreFull):
        return envelope(request, 507, "storage is full; nothing was lost, free some space", code="storage_full")
    message = "the database, broker or object store does not answer; try again"
    return envelope(request, 503, message, code="unavailable", headers={"retry-after": str(RETRY_AFTER_S)})


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - Starlette hands over what it was registered for
    details = [
        {"field": ".".join(str(part) for part in item["loc"][1:]) or None, "code": item["type"], "message": item["msg"]}
        for item in error.errors()
    ]
    first = details[0]
    message = f"{first['field'] or 'body'}: {first['message']}"
    if first["code"] == "extra_forbidden":
        message = f'unknown field "{first["field"]}"'
    return envelope(request, 422, message, code="invalid_request", param=first["field"], details=details)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette hands over what it was registered for
    code = error.code if isinstance(error, Refused) else _WORDS.get(error.status_code)
    param = error.param if isinstance(error, Refused) else None
    message = str(error.detail)
    if not isinstance(error, Refused) and error.status_code == 404:
        message = f"there is nothing at {request.url.path}"
    return envelope(request, error.status_code, message, code=code, param=param, headers=dict(error.headers or {}))


async def _gone(request: Request, _error: Exception) -> JSONResponse:
    # Nobody reads this answer; what was half sent is thrown away with its temporary file.
    return envelope(request, 400, "the client went away before its body was complete", code="incomplete_body")


async def _system(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return await _transient(request, StoreFull(str(error)))
    return await _defect(request, error)


async def _defect(request: Request, error: Exception) -> JSONResponse:
    request_id = getattr(request.state, "request_id", "")
    log.error(
        "A request met a defect.", action="api.defect", path=request.url.path, request_id=request_id, exc_info=error
    )
    return envelope(request, 500, f"something broke on the server; its log has it under {request_id}", code="internal")
