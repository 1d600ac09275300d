"""Heartbeat rows of workers: written by their side threads, read by dispatch, API and dashboard.

A worker that stopped beating is not removed: its row tells when it was last seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from storage.tables import Worker

_WORKERS = Worker.__table__


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
    """Insert the row of a worker that starts, or complete it; `storage.transitions.move_worker` moves its state."""
    known = {"engine": dict(worker.engine), "slots": worker.slots, "beat_at": now}
    if conn.execute(update(_WORKERS).where(_WORKERS.c.id == worker.id).values(known)).rowcount:
        return
    new = {"model": worker.model, "state": "starting", "wanted": "run", "version": worker.version, "started_at": now}
    conn.execute(insert(_WORKERS).values(id=worker.id, **known, **new))


def withdraw(conn: Connection, worker_id: str) -> None:
    """Remove the row of a worker that never was ready: nothing names it, and one that fails to start is tried again."""
    conn.execute(delete(_WORKERS).where(_WORKERS.c.id == worker_id, _WORKERS.c.state == "starting"))


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


def live(conn: Connection, now: float, late_s: float) -> Sequence[Any]:
    """Id, model, slots and stats of the ready workers heard of in the last `late_s` seconds."""
    statement = select(_WORKERS.c.id, _WORKERS.c.model, _WORKERS.c.slots, _WORKERS.c.stats)
    return conn.execute(statement.where(_WORKERS.c.state == "ready", _WORKERS.c.beat_at >= now - late_s)).all()


def live_slots(conn: Connection, now: float, late_s: float) -> dict[str, int]:
    """Slots of the ready workers heard of in the last `late_s` seconds, by model."""
    statement = (
        select(_WORKERS.c.model, func.sum(_WORKERS.c.slots))
        .where(_WORKERS.c.state == "ready", _WORKERS.c.beat_at >= now - late_s)
        .group_by(_WORKERS.c.model)
    )
    return {model: int(slots) for model, slots in conn.execute(statement)}


def states(conn: Connection, now: float, silent_s: float) -> dict[str, set[str]]:
    """By model the states of its workers that did not stop and were heard of in the last `silent_s` seconds."""
    heard = (_WORKERS.c.state != "stopped", _WORKERS.c.beat_at >= now - silent_s)
    found: dict[str, set[str]] = {}
    for model, state in conn.execute(select(_WORKERS.c.model, _WORKERS.c.state).where(*heard).distinct()):
        found.setdefault(model, set()).add(state)
    return found


def revision(conn: Connection, model: str) -> str | None:
    """The revision of a model as the newest worker that served it told; None when no worker ever did."""
    told = (_WORKERS.c.model == model, _WORKERS.c.slots > 0)  # one that still starts does not know its own yet
    statement = select(_WORKERS.c.engine).where(*told).order_by(_WORKERS.c.beat_at.desc()).limit(1)
    engine = conn.execute(statement).scalar_one_or_none()
    return str(engine["revision"]) if engine and engine.get("revision") else None
