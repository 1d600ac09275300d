"""Who looks at the pages: a session cookie over an API key, or the open door of a loopback stack without keys.

There are no passwords. People log in with a key; its role is theirs. The cookie names the key and is signed
with the key's stored hash and the server's secret, so that it survives restarts and ends with the key.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from itsdangerous import BadSignature, TimestampSigner
from sqlalchemy import Connection, Row, select
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.api.services import Services
from storage import access
from storage.access import DEFAULT_PROJECT, ROLES, Caller, Role
from storage.tables import ApiKey

COOKIE = "stagebeam_session"
SESSION_S = 12 * 3600
"""A session ends after this long; people log in once a working day."""
FAILURES = 10
FAILURES_S = 60.0
"""More refused keys than `FAILURES` within this time and nobody may try for the rest of it."""
SAFE_METHODS = frozenset({"GET", "HEAD"})

_KEYS = ApiKey.__table__


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who a page is made for."""

    caller: Caller
    name: str
    """Name of the key, or `local`."""
    read_only: bool

    @property
    def project_id(self) -> str:
        return self.caller.project_id

    @property
    def actor(self) -> str:
        """As the audit record names them."""
        return self.caller.key_id or "local"

    def may(self, role: Role) -> bool:
        """Whether to offer, and allow, what needs `role`; in read-only mode nobody may change anything."""
        return self.caller.may(role) and (role == ROLES[0] or not self.read_only)


def viewer_of(use: Services, request: Request) -> Viewer | None:
    """Who sent the request; None when they must log in first."""
    with use.db.read() as conn:
        row = _session_key(conn, use, request.cookies.get(COOKIE))
        if row is not None:
            caller = Caller(row.project_id, row.role, row.id)
            return Viewer(caller, row.name or row.hint, use.settings.read_only)
        if use.settings.loopback and not access.any_key(conn):
            return Viewer(Caller(DEFAULT_PROJECT, "admin", None), "local", use.settings.read_only)
    return None


def start_session(use: Services, request: Request, response: Response, token: str) -> bool:
    """Set the session cookie when `token` is a living key; False when it is not."""
    with use.db.read() as conn:
        caller = access.find_caller(conn, token, loopback=False)
        if caller is None or caller.key_id is None:
            return False
        key = _key(conn, caller.key_id)
    if key is None:
        return False
    value = _signer(use, key).sign(key.id).decode()
    response.set_cookie(
        COOKIE,
        value,
        max_age=SESSION_S,
        path=use.settings.path_prefix or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return True


def end_session(use: Services, response: Response) -> None:
    """Drop the cookie."""
    response.delete_cookie(COOKIE, path=use.settings.path_prefix or "/", httponly=True, samesite="lax")


def same_origin(request: Request) -> bool:
    """Whether a browser says that our own page sent this, which an unsafe method must show.

    `Sec-Fetch-Site` decides where the browser sends it, else an exact `Origin`. Neither: refused.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = urlsplit(request.headers.get("origin", ""))
    return bool(origin.netloc) and origin.netloc == request.headers.get("host")


@dataclass(slots=True)
class LoginLimit:
    """Counts refused log-ins; keys cannot be guessed, this keeps the log readable."""

    _failures: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES))

    def full(self, now: float) -> bool:
        """Whether to refuse without looking."""
        return len(self._failures) == FAILURES and now - self._failures[0] < FAILURES_S

    def count(self, now: float) -> None:
        """Note a refused key."""
        self._failures.append(now)


def _session_key(conn: Connection, use: Services, cookie: str | None) -> Row[tuple[object, ...]] | None:
    """The living key that a session cookie stands for."""
    if not cookie:
        return None
    key = _key(conn, cookie.partition(".")[0])
    if key is None:
        return None
    try:
        _signer(use, key).unsign(cookie, max_age=SESSION_S)
    except BadSignature:
        return None
    return key


def _key(conn: Connection, key_id: str) -> Row[tuple[object, ...]] | None:
    return conn.execute(select(_KEYS).where(_KEYS.c.id == key_id, _KEYS.c.revoked_at.is_(None))).one_or_none()


def _signer(use: Services, key: Row[tuple[object, ...]]) -> TimestampSigner:
    secret = use.settings.secret_key.get_secret_value() if use.settings.secret_key else ""
    return TimestampSigner(f"{secret}:{key.token_hash}", salt="stagebeam.session")
