"""Outcomes of calls: written once, by the owner of the lease, and what was done in vain is counted.

Fencing: nothing is written for a call whose lease the owner no longer holds, so a duplicate or late twin
changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from reasoning.records import CallStatus
from storage.hot import hot, row_list, together
from storage.portable import any_of
from storage.tables import Call, JobCounters

_CALLS = Call.__table__
_COUNTERS = JobCounters.__table__


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a claimed call. `status` is done, failed or cancelled; the JSON columns follow from it."""

    id: int
    query_id: int
    job_id: str
    status: CallStatus
    outcome: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    usage: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """Ids whose outcome was written, and ids whose work was for nothing."""

    written: frozenset[int]
    wasted: frozenset[int]


def finish(conn: Connection, owner: str, ended: Sequence[Ended], now: float) -> Written:
    """Write each outcome if the call is leased and the lease is the owner's; count the rest as waste.

    Tokens of unwritten results are added to `rerun_tokens` of their job, and calls to `wasted_calls` unless
    the call was cancelled meanwhile, all in the transaction of `conn`.
    """
    if not ended:
        return Written(frozenset(), frozenset())
    parameters = {"rows": row_list([_row(item) for item in ended]), "owner": owner, "now": now}
    (rows,) = together(conn, [(_FINISH, parameters)])
    written = frozenset(row.id for row in rows)
    unwritten = [item for item in ended if item.id not in written]
    return Written(written, _count_waste(conn, unwritten) if unwritten else frozenset())


def _row(item: Ended) -> dict[str, Any]:
    return {
        "id": item.id,
        "status": item.status.value,
        "outcome": item.outcome,
        "error": item.error,
        "usage": item.usage,
    }


def _count_waste(conn: Connection, unwritten: Sequence[Ended]) -> frozenset[int]:
    cancelled = set(
        conn.scalars(
            select(_CALLS.c.id).where(
                any_of(_CALLS.c.id, (item.id for item in unwritten)), _CALLS.c.status == CallStatus.CANCELLED.value
            )
        )
    )
    wasted = frozenset(item.id for item in unwritten if item.id not in cancelled)
    calls = Counter(item.job_id for item in unwritten if item.id in wasted)
    tokens: Counter[str] = Counter()
    for item in unwritten:
        tokens[item.job_id] += (item.usage or {}).get("generated_tokens", 0)
    rows = [{"job": job_id, "calls": calls[job_id], "tokens": tokens[job_id]} for job_id in sorted(tokens)]
    conn.execute(_WASTE, rows)
    return wasted


_WASTE = (
    update(_COUNTERS)
    .where(_COUNTERS.c.job_id == bindparam("job"))
    .values(
        wasted_calls=_COUNTERS.c.wasted_calls + bindparam("calls"),
        rerun_tokens=_COUNTERS.c.rerun_tokens + bindparam("tokens"),
    )
)
_FINISH = hot(
    """UPDATE calls SET status = v.status, outcome = v.outcome, error = v.error, usage = v.usage,
            worker = :owner, ended_at = :now, lease_owner = NULL, lease_until = NULL
        FROM json_to_recordset(CAST(:rows AS json))
            AS v(id bigint, status text, outcome json, error json, usage json)
        WHERE calls.id = v.id AND CASE calls.status WHEN 'leased' THEN calls.lease_owner = :owner ELSE false END
        RETURNING calls.id""",
    """UPDATE calls SET status = v.value ->> 'status', outcome = v.value ->> 'outcome',
            error = v.value ->> 'error', usage = v.value ->> 'usage',
            worker = :owner, ended_at = :now, lease_owner = NULL, lease_until = NULL
        FROM json_each(:rows) AS v
        WHERE calls.id = v.value ->> 'id'
            AND CASE calls.status WHEN 'leased' THEN calls.lease_owner = :owner ELSE false END
        RETURNING calls.id""",
)
