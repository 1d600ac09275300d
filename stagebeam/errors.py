"""What can go wrong between a client and its server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Base of the client's errors."""


class Unreachable(ClientError):
    """No answer came from the server."""


class ApiError(ClientError):
    """The server refused a request.

    Attributes:
        status: HTTP status.
        code: stable word for programs, or None.
        param: the offending field, or None.
        details: every reason where there are several.
        retry_after_s: seconds after which the server would look at it again, or None.
    """

    def __init__(self, status: int, body: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        error = body.get("error")
        known: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
        super().__init__(str(known.get("message") or f"the server answered {status}"))
        self.status = status
        self.code: str | None = known.get("code")
        self.param: str | None = known.get("param")
        self.details: list[Mapping[str, Any]] = list(known.get("details") or ())
        self.retry_after_s = retry_after_s
