"""Logging in with an API key, and out again."""

from __future__ import annotations

from starlette.responses import Response

from orchestrator.api.errors import Refused
from orchestrator.web import access
from orchestrator.web.pages import Ask


def form(ask: Ask) -> Response:
    """The log-in form."""
    return ask.page("login.html", back=_local(ask.query.get("back", "")), wrong=False)


def enter(ask: Ask) -> Response:
    """Check the key and begin a session."""
    now = ask.use.now()
    if ask.web.logins.full(now):
        raise Refused(429, "too many keys were refused; wait a minute and try again", "rate_limited")
    back = _local(ask.field("back"))
    response = ask.go(*back.strip("/").split("/"))
    if not access.start_session(ask.use, ask.request, response, ask.field("key")):
        ask.web.logins.count(now)
        return ask.page("login.html", 403, back=back, wrong=True)
    return response


def leave(ask: Ask) -> Response:
    """End the session."""
    response = ask.go("login")
    access.end_session(ask.use, response)
    return response


def _local(back: str) -> str:
    """An address of ours to go back to; anything else is the front page."""
    return back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/"
