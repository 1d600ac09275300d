"""Requests per minute of a project, counted in one place for all API processes.

A bucket of tokens as one number, the time at which it will be full again (the generic cell rate algorithm): a
request moves that time on by the share of a minute that it takes, unless it would lie more than a minute ahead.
"""

from __future__ import annotations

from sqlalchemy import Connection, case, select

from storage.portable import insert_into
from storage.tables import RequestRate

MINUTE_S = 60.0
ROUNDING_S = 1e-6
"""Seconds since the epoch are exact to half of that."""

_RATES = RequestRate.__table__


def take(conn: Connection, project_id: str, per_minute: int, now: float) -> float:
    """Count one request of a project. 0.0 when it may pass, else the seconds until one may.

    `per_minute` requests may come at once; then one passes every `60 / per_minute` seconds.
    """
    period_s = MINUTE_S / per_minute
    before = case((_RATES.c.full_at > now, _RATES.c.full_at), else_=now)
    latest = now + MINUTE_S - period_s + ROUNDING_S
    moved = insert_into(_RATES, conn).values(project_id=project_id, full_at=now + period_s)
    moved = moved.on_conflict_do_update(
        index_elements=["project_id"], set_={"full_at": before + period_s}, where=before <= latest
    )
    if conn.execute(moved.returning(_RATES.c.project_id)).one_or_none() is not None:
        return 0.0
    full_at = conn.execute(select(_RATES.c.full_at).where(_RATES.c.project_id == project_id)).scalar_one()
    return max(0.0, float(full_at) - latest)
