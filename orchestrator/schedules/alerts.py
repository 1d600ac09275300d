"""Telling others by webhook what became of a schedule's slots."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from orchestrator.schedules.options import Event, Options
from storage import outbox


def alert(
    conn: Connection, schedule: Any, event: Event, now: float, data: Mapping[str, Any], *, slot_id: int | None = None
) -> bool:
    """Note an event for the schedule's webhook, in the transaction that makes it true; False when nobody asked for it.

    The event's id depends on schedule, event and slot, so that telling twice tells once.
    """
    wanted = Options.from_mapping(schedule.options).alerts
    if not wanted.url or event not in wanted.events:
        return False
    unique = f"{schedule.id}|{event}|{slot_id if slot_id is not None else now}"
    event_id = f"evt_{hashlib.sha256(unique.encode()).hexdigest()[:32]}"
    about = {"schedule": schedule.name, "slot": slot_id, **data}
    kind = f"schedule.{event}"
    outbox.add(
        conn,
        event_id=event_id,
        project_id=schedule.project_id,
        subject=schedule.id,
        type=kind,
        url=wanted.url,
        secret=wanted.secret or None,
        body={"id": event_id, "object": "event", "type": kind, "created_at": int(now), "data": about},
        now=now,
    )
    return True
