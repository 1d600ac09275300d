"""Heartbeat rows of workers: written by their side threads, read by dispatch, API and dashboard.

A worker that stopped beating is not removed: its row tells when it was last seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, insert, select, update

from storage.tables import Worker

_WORKERS = Worker.__table__

Health = Literal["alive", "late", "lost", "stopped"]

LATE_BEATS = 3
"""A worker whose last beat is older than this many beats is late: no new work is planned for it."""
LOST_BEATS = 12
"""A late worker counts as lost after this many beats."""


@dataclass(frozen=True, slots=True)
class NewWorker:
    """What does not change in the life of a worker process."""

    id: str
    model: str
    """Name of the queue that it serves."""
    engine: Mapping[str, Any]
    """`EngineInfo` as JSON."""
    slots: int
    version: str


def enroll(conn: Connection, worker: NewWorker, now: float) -> None:
    """Insert the row of a worker that is starting; `storage.transitions.move_worker` moves its state."""
    conn.execute(
        insert(_WORKERS).values(
            id=worker.id,
            model=worker.model,
            engine=dict(worker.engine),
            slots=worker.slots,
            state="starting",
            wanted="run",
            version=worker.version,
            started_at=now,
            beat_at=now,
        )
    )


def beat(
    conn: Connection, worker_id: str, now: float, in_hand: Sequence[Mapping[str, Any]], stats: Mapping[str, Any]
) -> str | None:
    """Say that the worker lives and what it does; returns what people want of it, `run` or `drain`.

    None when the row is gone: somebody removed it, and the worker enrolls again.
    """
    statement = (
        update(_WORKERS)
        .where(_WORKERS.c.id == worker_id)
        .values(beat_at=now, in_hand=[dict(item) for item in in_hand], stats=dict(stats))
        .returning(_WORKERS.c.wanted)
    )
    return conn.execute(statement).scalar_one_or_none()


def live_slots(conn: Connection, now: float, late_s: float) -> dict[str, int]:
    """Slots of the ready workers heard of in the last `late_s` seconds, by model."""
    statement = (
        select(_WORKERS.c.model, func.sum(_WORKERS.c.slots))
        .where(_WORKERS.c.state == "ready", _WORKERS.c.beat_at >= now - late_s)
        .group_by(_WORKERS.c.model)
    )
    return {model: int(slots) for model, slots in conn.execute(statement)}


def seen_since(conn: Connection, since: float) -> Sequence[Row[Any]]:
    """Rows of workers heard of at or after `since`, newest life first."""
    statement = select(_WORKERS).where(_WORKERS.c.beat_at >= since)
    return conn.execute(statement.order_by(_WORKERS.c.started_at.desc(), _WORKERS.c.id)).all()


def health(state: str, beat_at: float, now: float, heartbeat_s: float) -> Health:
    """How a worker is doing by the age of its last beat."""
    if state == "stopped":
        return "stopped"
    age = now - beat_at
    if age <= LATE_BEATS * heartbeat_s:
        return "alive"
    return "late" if age <= LOST_BEATS * heartbeat_s else "lost"
