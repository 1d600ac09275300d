"""Projects, API keys and the record of what people did.

A key is a random token of 256 bits. Only its SHA-256 is stored: a slow, salted password hash defends words
that people choose against guessing, and there is nothing to guess here, while every request must find its
key by an indexed look-up.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Row, insert, or_, select, update

from reasoning.errors import BadInput, nearest
from storage.portable import insert_ignore
from storage.tables import ApiKey, AuditEntry, Project

Role = Literal["viewer", "operator", "admin"]
"""viewer reads; operator also submits and changes jobs; admin also keeps projects and keys."""
ROLES: tuple[Role, ...] = get_args(Role)

DEFAULT_PROJECT = "default"
TOKEN_PREFIX = "sb-"  # noqa: S105 - what tokens begin with, so that leaked ones are recognised
HINT_CHARACTERS = 8
TOUCH_S = 60.0
"""`last_used_at` is no finer than this, so that reading costs a write a minute at most."""

_PROJECTS = Project.__table__
_KEYS = ApiKey.__table__
_AUDIT = AuditEntry.__table__


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a request is served."""

    project_id: str
    role: Role
    key_id: str | None
    """None for the open door of a loopback stack without keys."""

    def may(self, role: Role) -> bool:
        """Whether this caller has the rights of `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; `token` is shown once and kept nowhere."""

    id: str
    token: str


def create_key(conn: Connection, *, project_id: str, name: str, role: str, now: float) -> NewKey:
    """Make a key. The first one ends the open door of `find_caller`.

    Raises:
        BadInput: no such role or project.
    """
    if role not in ROLES:
        raise BadInput(
            f'there is no role "{role}"; use one of: {", ".join(ROLES)}.{nearest(role, ROLES)}',
            code="invalid_role",
            field="role",
        )
    if get_project(conn, project_id) is None:
        raise BadInput(
            f'there is no project "{project_id}"; `stagebeam project create` makes one',
            code="unknown_project",
            field="project_id",
        )
    key = NewKey(f"key_{secrets.token_hex(8)}", TOKEN_PREFIX + secrets.token_urlsafe(32))
    conn.execute(
        insert(_KEYS).values(
            id=key.id,
            project_id=project_id,
            name=name,
            role=role,
            token_hash=_hash(key.token),
            hint=key.token[:HINT_CHARACTERS],
            created_at=now,
        )
    )
    return key


def revoke_key(conn: Connection, key_id: str, now: float) -> bool:
    """End a key; False when there is none or it has ended. A project whose keys all ended stays closed."""
    statement = update(_KEYS).where(_KEYS.c.id == key_id, _KEYS.c.revoked_at.is_(None)).values(revoked_at=now)
    return conn.execute(statement).rowcount == 1


def list_keys(conn: Connection, project_id: str | None = None) -> Sequence[Row[Any]]:
    """Keys, oldest first, without their hashes."""
    columns = [column for column in _KEYS.c if column.name != "token_hash"]
    statement = select(*columns).order_by(_KEYS.c.created_at, _KEYS.c.id)
    return conn.execute(statement if project_id is None else statement.where(_KEYS.c.project_id == project_id)).all()


def find_caller(conn: Connection, token: str | None, *, loopback: bool) -> Caller | None:
    """Who a bearer token belongs to; None when it must be refused.

    While no key was ever created and the server is bound to loopback, anybody (any token, or none) is an
    admin of the default project: the embedded stack works out of the box. The first key ends that for good.
    """
    if token is not None:
        where = (_KEYS.c.token_hash == _hash(token), _KEYS.c.revoked_at.is_(None))
        row = conn.execute(select(_KEYS.c.project_id, _KEYS.c.role, _KEYS.c.id).where(*where)).one_or_none()
        if row is not None:
            return Caller(row.project_id, row.role, row.id)
    if loopback and not any_key(conn):
        return Caller(DEFAULT_PROJECT, "admin", None)
    return None


def any_key(conn: Connection) -> bool:
    """Whether a key was ever created, revoked ones included."""
    return conn.execute(select(_KEYS.c.id).limit(1)).one_or_none() is not None


def touch_key(conn: Connection, key_id: str, now: float) -> None:
    """Note that a key was used, at most once a minute."""
    stale = or_(_KEYS.c.last_used_at.is_(None), _KEYS.c.last_used_at < now - TOUCH_S)
    conn.execute(update(_KEYS).where(_KEYS.c.id == key_id, stale).values(last_used_at=now))


def create_project(
    conn: Connection, project_id: str, name: str, now: float, limits: Mapping[str, Any] | None = None
) -> bool:
    """Make a project; False when there is one of this id."""
    values = {"id": project_id, "name": name, "limits": dict(limits) if limits else None, "created_at": now}
    statement = insert_ignore(_PROJECTS, conn).values(values).returning(_PROJECTS.c.id)
    return conn.execute(statement).one_or_none() is not None


def get_project(conn: Connection, project_id: str) -> Row[Any] | None:
    """One project row."""
    return conn.execute(select(_PROJECTS).where(_PROJECTS.c.id == project_id)).one_or_none()


def list_projects(conn: Connection) -> Sequence[Row[Any]]:
    """All projects by id."""
    return conn.execute(select(_PROJECTS).order_by(_PROJECTS.c.id)).all()


def set_limits(conn: Connection, project_id: str, limits: Mapping[str, Any] | None) -> bool:
    """Set a project's limits, None for none; False when there is no such project."""
    values = {"limits": dict(limits) if limits else None}
    return conn.execute(update(_PROJECTS).where(_PROJECTS.c.id == project_id).values(values)).rowcount == 1


def note(
    conn: Connection,
    *,
    project_id: str | None,
    actor: str,
    action: str,
    subject: str,
    now: float,
    reason: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Add an entry to the audit record: who did what to which thing, and why."""
    values = {"project_id": project_id, "at": now, "actor": actor, "action": action, "subject": subject}
    rest = {"reason": reason, "details": dict(details) if details else None}
    conn.execute(insert(_AUDIT).values(**values, **rest))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
