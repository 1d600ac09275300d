"""What people want of queues and workers, written as rows and obeyed at the next look: pause, drain, send again."""

from __future__ import annotations

from sqlalchemy import Connection, delete, update

from storage.portable import insert_ignore
from storage.tables import Call, QueueControl, Worker

_CONTROLS = QueueControl.__table__
_WORKERS = Worker.__table__
_CALLS = Call.__table__


def pause_model(conn: Connection, model: str, now: float, reason: str, actor: str) -> bool:
    """Admit no more queries of a model; False when its queue is paused already."""
    values = {"paused_at": now, "reason": reason, "actor": actor}
    new = insert_ignore(_CONTROLS, conn).values(model=model, **values).returning(_CONTROLS.c.model)
    if conn.execute(new).one_or_none() is not None:
        return True
    again = update(_CONTROLS).where(_CONTROLS.c.model == model, _CONTROLS.c.paused_at.is_(None)).values(values)
    return conn.execute(again).rowcount == 1


def resume_model(conn: Connection, model: str) -> bool:
    """Admit queries again; False when the queue was not paused."""
    return conn.execute(delete(_CONTROLS).where(_CONTROLS.c.model == model)).rowcount == 1


def want(conn: Connection, worker_id: str, wanted: str) -> bool:
    """Say what a worker should do, `run` or `drain`; it obeys at its next heartbeat. False when there is none."""
    statement = update(_WORKERS).where(_WORKERS.c.id == worker_id, _WORKERS.c.state != "stopped")
    return conn.execute(statement.values(wanted=wanted)).rowcount == 1


def send_again(conn: Connection, model: str) -> int:
    """Have the messages of all queued calls of a model sent anew at the next reconcile; how many calls.

    Calls that a worker holds are left alone, and one that gets two messages runs once.
    """
    statement = update(_CALLS).where(_CALLS.c.model == model, _CALLS.c.status == "queued")
    return conn.execute(statement.values(sent_at=0.0)).rowcount
