"""Who asks: from the bearer token to a project and a role.

On loopback with no key created yet, everybody is the default project's admin. What belongs to another project
is not there: routes look things up with the caller's project, and answer 404.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Connection

from orchestrator.api.errors import Refused
from orchestrator.api.services import Services, services
from storage import access
from storage.access import Caller, Role

_CHALLENGE = {"www-authenticate": "Bearer"}


def bearer(request: Request) -> str | None:
    """The token of the `Authorization` header, or None."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def identify(use: Services, token: str | None) -> Caller:
    """The caller behind a token. Raises Refused (401)."""
    with use.db.read() as conn:
        caller = access.find_caller(conn, token, loopback=use.settings.loopback)
    if caller is None:
        message = "the key is missing, wrong or revoked; send one as `Authorization: Bearer sb-...`"
        raise Refused(401, message, "invalid_api_key", _CHALLENGE)
    if caller.key_id is not None:
        _touch(use, caller.key_id)
    return caller


def _touch(use: Services, key_id: str) -> None:
    now = use.now()
    # Asked here first, so that a busy key costs a write a minute and not one per request.
    if now - use.touched.get(key_id, 0.0) >= access.TOUCH_S:
        use.touched[key_id] = now
        with use.db.write() as conn:
            access.touch_key(conn, key_id, now)


def allowed(role: Role) -> Callable[[Request], Caller]:
    """A dependency that lets through callers with the rights of `role`. Read-only mode lets nobody change anything."""

    def check(request: Request) -> Caller:
        use = services(request)
        if role != "viewer" and use.settings.read_only:
            raise Refused(403, "this server is read-only (STAGEBEAM_READ_ONLY)", "read_only")
        caller = identify(use, bearer(request))
        if not caller.may(role):
            raise Refused(403, f"this key has the role {caller.role}; this needs {role}", "insufficient_role")
        use.rates.take(use.db, caller.project_id, use.now())
        return caller

    return check


Viewer = Annotated[Caller, Depends(allowed("viewer"))]
"""Parameter type of a route that reads."""
Operator = Annotated[Caller, Depends(allowed("operator"))]
"""Parameter type of a route that submits or changes."""
Admin = Annotated[Caller, Depends(allowed("admin"))]
"""Parameter type of a route that keeps keys and projects."""


def record(conn: Connection, caller: Caller, now: float, action: str, subject: str, reason: str | None = None) -> None:
    """Note in the audit trail what the caller did, in the transaction that does it."""
    actor = caller.key_id or "local"
    access.note(conn, project_id=caller.project_id, actor=actor, action=action, subject=subject, now=now, reason=reason)
