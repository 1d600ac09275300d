"""Leased duties: of several orchestrators one ingests, dispatches and finalizes; the others stand by."""

from __future__ import annotations

from sqlalchemy import Connection, delete, or_, update

from storage.portable import insert_ignore
from storage.tables import Duty

_DUTIES = Duty.__table__


def take(conn: Connection, name: str, owner: str, now: float, lease_s: float) -> bool:
    """Take or renew the duty; False while another living owner holds it."""
    conn.execute(insert_ignore(_DUTIES, conn), {"name": name, "owner": owner, "until": now + lease_s})
    taken = conn.execute(
        update(_DUTIES)
        .where(_DUTIES.c.name == name, or_(_DUTIES.c.owner == owner, _DUTIES.c.until < now))
        .values(owner=owner, until=now + lease_s)
    )
    return taken.rowcount == 1


def forget(conn: Connection, prefix: str, before: float) -> int:
    """Remove duties of a kind whose leases ran out before a time: who held them died and nobody took them over."""
    gone = delete(_DUTIES).where(_DUTIES.c.name.startswith(prefix, autoescape=True), _DUTIES.c.until < before)
    return conn.execute(gone).rowcount


def drop(conn: Connection, name: str, owner: str) -> None:
    """Give the duty back at a clean stop, so that another need not wait for the lease to run out."""
    conn.execute(delete(_DUTIES).where(_DUTIES.c.name == name, _DUTIES.c.owner == owner))
