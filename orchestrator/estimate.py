"""How long a job may take and what it may store: a range from what this server has done, and an upper bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from reasoning.cost import Cost, cost_of
from reasoning.policy import Policy
from storage.tables import Job, JobCounters

_JOBS = Job.__table__
_COUNTERS = JobCounters.__table__

JOBS_LOOKED_AT = 20
MIN_QUERIES = 5
"""A job with fewer says more about starting than about running."""
BYTES_PER_TOKEN = 4
BYTES_PER_VERDICT = 2048
BYTES_PER_QUERY = 2048
"""Generous sizes of what is kept for each, before compression."""


def estimate(conn: Connection, model: str, policy: Policy, cost: Cost) -> dict[str, Any]:
    """The document shown with a plan.

    `seconds` is from the first start to the end, were nothing else to run: the range of the latest jobs of the model,
    of the same policy where there are any, and the wider the fewer they are. It is null where none has ended yet.
    """
    ended = _ended(conn, model)
    same = [row for row in ended if row.policy_digest == policy.digest]
    paces = [_pace(row) for row in same or ended]
    stored = cost.tokens_max * BYTES_PER_TOKEN + cost.verdicts_max * BYTES_PER_VERDICT + cost.queries * BYTES_PER_QUERY
    return {
        "seconds": _range(paces, cost.tokens_max) if cost.queries else None,
        "seconds_from_jobs": len(paces),
        "same_policy": bool(same),
        "storage_bytes_max": stored,
    }


def _range(paces: Sequence[float], tokens: int) -> list[float] | None:
    if not paces:
        return None
    doubt = 1 / math.sqrt(len(paces))
    return [round(tokens * min(paces) * (1 - doubt / 2), 1), round(tokens * max(paces) * (1 + doubt), 1)]


def _pace(row: Any) -> float:
    """Seconds of a job for each token that its policy allowed: few jobs come near what is allowed."""
    return float(row.seconds) / max(1, cost_of(Policy.from_mapping(row.policy), row.total).tokens_max)


def _ended(conn: Connection, model: str) -> list[Any]:
    statement = (
        select(
            (_JOBS.c.ended_at - _JOBS.c.started_at).label("seconds"),
            _COUNTERS.c.total, _JOBS.c.policy, _JOBS.c.policy_digest,
        )
        .join(_COUNTERS, _COUNTERS.c.job_id == _JOBS.c.id)
        .where(_JOBS.c.status == "completed", _JOBS.c.model == model, _COUNTERS.c.total >= MIN_QUERIES)
        .order_by(_JOBS.c.created_at.desc())
        .limit(JOBS_LOOKED_AT)
    )  # fmt: skip
    return [row for row in conn.execute(statement) if row.seconds and row.seconds > 0]
