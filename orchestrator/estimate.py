"""How long a job may take and what it may store: a range from what this server has done, and an upper bound."""

from __future__ import annotations

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


def estimate(conn: Connection, model: str, cost: Cost) -> dict[str, Any]:
    """The document shown with a plan.

    `seconds` is null where no job of the model has ended yet. The range is that of the latest jobs, by tokens:
    other policies cost other amounts, and nobody knows what else will run beside it.
    """
    ended = _ended(conn, model)
    rates = [row.generated / row.seconds for row in ended]
    spread = None
    if rates and cost.queries:
        typical = cost.tokens_max * _used_part(ended)
        spread = [round(typical / max(rates), 1), round(cost.tokens_max / min(rates), 1)]
    stored = cost.tokens_max * BYTES_PER_TOKEN + cost.verdicts_max * BYTES_PER_VERDICT + cost.queries * BYTES_PER_QUERY
    return {"seconds": spread, "seconds_from_jobs": len(rates), "storage_bytes_max": stored}


def _ended(conn: Connection, model: str) -> list[Any]:
    generated = _COUNTERS.c.kept_tokens + _COUNTERS.c.discarded_tokens + _COUNTERS.c.judged_tokens
    statement = (
        select(
            (_JOBS.c.ended_at - _JOBS.c.started_at).label("seconds"), generated.label("generated"), _COUNTERS.c.total,
            _JOBS.c.policy,
        )
        .join(_COUNTERS, _COUNTERS.c.job_id == _JOBS.c.id)
        .where(_JOBS.c.status == "completed", _JOBS.c.model == model, _COUNTERS.c.total >= MIN_QUERIES)
        .order_by(_JOBS.c.created_at.desc())
        .limit(JOBS_LOOKED_AT)
    )  # fmt: skip
    return [row for row in conn.execute(statement) if row.seconds and row.seconds > 0 and row.generated]


def _used_part(ended: Sequence[Any]) -> float:
    """The least part of the tokens allowed that one of the jobs really used."""
    allowed = (cost_of(Policy.from_mapping(row.policy), row.total).tokens_max for row in ended)
    return min(1.0, *(float(row.generated / max(1, most)) for row, most in zip(ended, allowed, strict=True)))
