"""JSON bodies, read strictly: what no database keeps as text is refused before it reaches a route.

The standard library's reader lets half of a surrogate pair, NaN and nesting without end through, and each of them
breaks something further in.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from orchestrator.api.errors import Refused
from orchestrator.intake.validate import place_of_nul

MAX_PARAM = 120
"""Characters of a field's name in an answer."""


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The decoded body. Raises Refused (400)."""
        data = await self.body()
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            at = f"line {error.lineno}, column {error.colno}"
            raise Refused(400, f"the body is not JSON: {error.msg} ({at})", "invalid_json") from error
        place = place_of_nul(value) if rb"\u0000" in data else None
        if place is not None:
            field = place[:MAX_PARAM] or None
            message = rf"{field or 'the body'} holds the character \u0000; remove it"
            raise Refused(400, message, "invalid_value", param=field)
        return value


class JsonRoute(APIRoute):
    """A route whose JSON body is read strictly; for every router that takes one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if self.body_field is not None and not _may_be_json(request):
                raise Refused(415, "send the body as application/json", "unsupported_media_type")
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict


def _may_be_json(request: Request) -> bool:
    """Whether a body would be read as JSON, or the client did not say what it is."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return not kind or kind == "application/json" or kind.endswith("+json")
