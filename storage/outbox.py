"""Rows of webhook deliveries: written with the state they tell of, sent and settled later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from storage.portable import any_of
from storage.tables import Delivery

_DELIVERIES = Delivery.__table__


def add(  # noqa: PLR0913 - one argument a column, by name only
    conn: Connection,
    *,
    event_id: str,
    project_id: str,
    subject: str,
    type: str,  # noqa: A002 - the column's name
    url: str,
    secret: str | None,
    body: Mapping[str, Any],
    now: float,
) -> None:
    """Note an event to be sent, in the transaction of the state that it tells of."""
    values = {"event_id": event_id, "project_id": project_id, "subject": subject, "type": type, "url": url}
    rest = {"secret": secret, "body": dict(body), "next_at": now, "created_at": now}
    conn.execute(insert(_DELIVERIES).values(**values, **rest))


def take_due(conn: Connection, now: float, count: int, *, hold_s: float) -> Sequence[Row[Any]]:
    """Up to `count` deliveries whose time has come, held for `hold_s` so that nobody else sends them meanwhile.

    Each counts as one more attempt; `attempts` in the rows is the number before.
    """
    statement = (
        select(_DELIVERIES)
        .where(_DELIVERIES.c.next_at <= now, _DELIVERIES.c.ended_at.is_(None))
        .order_by(_DELIVERIES.c.next_at)
        .limit(count)
        .with_for_update(skip_locked=True)
    )
    rows = conn.execute(statement).all()
    held = any_of(_DELIVERIES.c.id, [row.id for row in rows])
    conn.execute(update(_DELIVERIES).where(held).values(next_at=now + hold_s, attempts=_DELIVERIES.c.attempts + 1))
    return rows


def settle(conn: Connection, delivery_id: int, now: float, *, delivered: bool, error: str | None = None) -> None:
    """End a delivery: it arrived, or it is given up."""
    values = {"ended_at": now, "delivered": delivered, "next_at": None, "last_error": error}
    conn.execute(update(_DELIVERIES).where(_DELIVERIES.c.id == delivery_id).values(values))


def postpone(conn: Connection, delivery_id: int, next_at: float, error: str) -> None:
    """Try again later."""
    values = {"next_at": next_at, "last_error": error}
    conn.execute(update(_DELIVERIES).where(_DELIVERIES.c.id == delivery_id).values(values))


def of_subject(conn: Connection, project_id: str, subject: str) -> Sequence[Row[Any]]:
    """The deliveries about one thing, oldest first."""
    where = (_DELIVERIES.c.project_id == project_id, _DELIVERIES.c.subject == subject)
    return conn.execute(select(_DELIVERIES).where(*where).order_by(_DELIVERIES.c.id)).all()
