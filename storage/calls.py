"""Leases and outcomes of calls: claimed in one statement, written once, given back or expired.

An owner is the id of one life of a worker process. Fencing: nothing is written for a call whose lease the
owner no longer holds, so a duplicate or late twin changes nothing and is counted as waste.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, false, select, text, update

from reasoning.records import CallError, CallSpec, CallStatus
from storage.portable import any_of
from storage.tables import Call, Job, JobCounters, Query

_CALLS = Call.__table__
_QUERIES = Query.__table__
_JOBS = Job.__table__
_COUNTERS = JobCounters.__table__

ALONE_DEATHS = 2
"""A call in hand at so many deaths runs with no other call beside it."""
POISON_DEATHS = 3
"""A call in hand at so many deaths is failed as `poison_call`."""

_QUEUED = CallStatus.QUEUED.value
_LEASED = CallStatus.LEASED.value


@dataclass(frozen=True, slots=True)
class Claimed:
    """A call that is now leased: what it must do, and whose it is."""

    id: int
    query_id: int
    job_id: str
    model: str
    spec: CallSpec
    attempts: int
    """Leases taken, this one included."""
    deaths: int


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


@dataclass(frozen=True, slots=True)
class Loose:
    """A call without an owner: to be sent again, or failed so that its query must be planned again."""

    id: int
    query_id: int
    job_id: str
    model: str
    kind: str


_LOOSE = (_CALLS.c.id, _CALLS.c.query_id, _CALLS.c.job_id, _CALLS.c.model, _CALLS.c.kind)
_CLAIMED = (
    *(_CALLS.c.id, _CALLS.c.query_id, _CALLS.c.job_id, _CALLS.c.model, _CALLS.c.attempts, _CALLS.c.deaths),
    *(_CALLS.c.key, _CALLS.c.kind, _CALLS.c.stage, _CALLS.c.round, _CALLS.c.request),
)
_WANTED = (
    select(and_(_QUERIES.c.status == "running", _JOBS.c.status == "running", _JOBS.c.paused_at.is_(None)))
    .where(_QUERIES.c.id == _CALLS.c.query_id, _JOBS.c.id == _QUERIES.c.job_id)
    .scalar_subquery()
)
"""Somebody still waits for the call: its query runs, and its job runs and is not paused.

A scalar subquery is looked up row by row. As a join, a database without statistics begins with all running
queries instead of the few calls that are named.
"""


def look_up_by_key(conn: Connection) -> None:
    """Keep Postgres from scanning whole tables in this transaction.

    Its first plans are made while the tables are small and without statistics, and are kept while they grow.
    """
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("SET LOCAL enable_seqscan = off")


def claim(
    conn: Connection, call_ids: Iterable[int], owner: str, now: float, lease_s: float, *, alone: bool = False
) -> list[Claimed]:
    """Lease those of the calls that are queued, or whose lease ran out (which counts as a death), in id order.

    Calls that ended, that a living owner holds or that nobody waits for are left out, and so are calls with
    two deaths unless `alone`: see `need_alone`.
    """
    look_up_by_key(conn)
    least, most = (0, ALONE_DEATHS) if alone else (0, ALONE_DEATHS - 1)
    statement = (
        update(_CALLS)
        .where(any_of(_CALLS.c.id, call_ids), _takeable(least, most, now), _WANTED)
        .values(
            status=_LEASED,
            lease_owner=owner,
            lease_until=now + lease_s,
            started_at=now,
            attempts=_CALLS.c.attempts + 1,
            deaths=_CALLS.c.deaths + case((_CALLS.c.status == _LEASED, 1), else_=0),
        )
        .returning(*_CLAIMED)
    )
    return sorted((_claimed(row) for row in conn.execute(statement).all()), key=lambda call: call.id)


def need_alone(conn: Connection, call_ids: Iterable[int], now: float) -> list[int]:
    """Those of the calls that `claim` takes only with `alone`, in id order."""
    wanted = any_of(_CALLS.c.id, call_ids), _takeable(ALONE_DEATHS, ALONE_DEATHS, now), _WANTED
    return sorted(conn.scalars(select(_CALLS.c.id).where(*wanted)))


def renew(conn: Connection, call_ids: Iterable[int], owner: str, until: float) -> set[int]:
    """Move the end of the leases; the ids returned are still the owner's, the others are lost."""
    statement = update(_CALLS).where(_own(call_ids, owner)).values(lease_until=until).returning(_CALLS.c.id)
    return set(conn.scalars(statement))


def held(conn: Connection, call_ids: Iterable[int], owner: str) -> set[int]:
    """Those of the calls that the owner still holds; one that was cancelled or taken over is missing."""
    return set(conn.scalars(select(_CALLS.c.id).where(_own(call_ids, owner))))


def finish(conn: Connection, owner: str, ended: Sequence[Ended], now: float) -> Written:
    """Write each outcome if the call is leased and the lease is the owner's; count the rest as waste.

    Tokens of unwritten results are added to `rerun_tokens` of their job, and calls to `wasted_calls` unless
    the call was cancelled meanwhile, all in the transaction of `conn`.
    """
    if not ended:
        return Written(frozenset(), frozenset())
    look_up_by_key(conn)
    rows = [_row(item) for item in ended]
    parameters = {"rows": _encoded(rows), "owner": owner, "now": now}
    written = frozenset(conn.scalars(_FINISH[conn.dialect.name], parameters).all())
    unwritten = [item for item in ended if item.id not in written]
    return Written(written, _count_waste(conn, unwritten) if unwritten else frozenset())


def release(conn: Connection, call_ids: Iterable[int], owner: str, sent_at: float) -> list[Loose]:
    """Give calls back without an outcome and without a death; they count as sent at `sent_at`."""
    statement = (
        update(_CALLS)
        .where(_own(call_ids, owner))
        .values(status=_QUEUED, lease_owner=None, lease_until=None, sent_at=sent_at)
        .returning(*_LOOSE)
    )
    return [Loose(*row) for row in conn.execute(statement).all()]


@dataclass(frozen=True, slots=True)
class Expired:
    """Calls whose owner died: `queued` ones need a message, the queries of `failed` ones must be planned again."""

    queued: list[Loose]
    failed: list[Loose]


def expire_leases(conn: Connection, now: float) -> Expired:
    """Take back every lease that ran out, counting a death; a third death fails the call as `poison_call`."""
    ran_out = and_(_CALLS.c.status == _LEASED, _CALLS.c.lease_until < now)
    failed = [
        Loose(*conn.execute(_POISON, {"row_id": row.id, "now": now, "why": _poison(row)}).one())
        for row in conn.execute(
            select(_CALLS.c.id, _CALLS.c.attempts, _CALLS.c.key)
            .where(ran_out, _CALLS.c.deaths >= POISON_DEATHS - 1)
            .with_for_update(skip_locked=True)
        ).all()
    ]
    queued = (
        update(_CALLS)
        .where(ran_out, _CALLS.c.deaths < POISON_DEATHS - 1)
        .values(status=_QUEUED, lease_owner=None, lease_until=None, sent_at=now, deaths=_CALLS.c.deaths + 1)
        .returning(*_LOOSE)
    )
    return Expired([Loose(*row) for row in conn.execute(queued).all()], failed)


# The conditions below are cases so that no index on the status can serve them: the calls are named by id.


def _takeable(least: int, most: int, now: float) -> ColumnElement[bool]:
    """Queued, or leased with the lease run out, with `least` to `most` deaths, a death by this claim included."""
    deaths = _CALLS.c.deaths
    return case(
        (_CALLS.c.status == _QUEUED, deaths.between(least, most)),
        (_CALLS.c.status == _LEASED, and_(_CALLS.c.lease_until < now, deaths.between(least - 1, most - 1))),
        else_=false(),
    )


def _own(call_ids: Iterable[int], owner: str) -> ColumnElement[bool]:
    mine = case((_CALLS.c.status == _LEASED, _CALLS.c.lease_owner == owner), else_=false())
    return and_(any_of(_CALLS.c.id, call_ids), mine)


def _claimed(row: Any) -> Claimed:
    spec = CallSpec.from_json(row.key, row.kind, row.stage, row.round, row.request)
    return Claimed(row.id, row.query_id, row.job_id, row.model, spec, row.attempts, row.deaths)


def _row(item: Ended) -> dict[str, Any]:
    return {
        "id": item.id,
        "status": item.status.value,
        "outcome": item.outcome,
        "error": item.error,
        "usage": item.usage,
    }


def is_storable(value: str) -> bool:
    """Whether the text is stored as it is: NUL and lone surrogates, which a model may write, are replaced."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _encoded(rows: list[dict[str, Any]]) -> str:
    try:
        encoded = orjson.dumps(rows).decode()
    except orjson.JSONEncodeError:
        return orjson.dumps(_storable(rows)).decode()
    return orjson.dumps(_storable(rows)).decode() if "\\u0000" in encoded else encoded


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return {key: _storable(item) for key, item in value.items()} if isinstance(value, dict) else value


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


def _poison(row: Any) -> dict[str, Any]:
    error = CallError(
        code="poison_call",
        message=f"The worker died {POISON_DEATHS} times with call {row.key} in hand, the last time with no other "
        "call beside it. Look at the worker's log; retry the query once the cause is gone.",
        attempts=row.attempts,
    )
    return error.to_json()


_WASTE = (
    update(_COUNTERS)
    .where(_COUNTERS.c.job_id == bindparam("job"))
    .values(
        wasted_calls=_COUNTERS.c.wasted_calls + bindparam("calls"),
        rerun_tokens=_COUNTERS.c.rerun_tokens + bindparam("tokens"),
    )
)
_POISON = (
    update(_CALLS)
    .where(_CALLS.c.id == bindparam("row_id"), _CALLS.c.status == _LEASED)
    .values(
        status=CallStatus.FAILED.value,
        lease_owner=None,
        lease_until=None,
        deaths=_CALLS.c.deaths + 1,
        ended_at=bindparam("now"),
        error=bindparam("why", type_=_CALLS.c.error.type),
    )
    .returning(*_LOOSE)
)

# All rows travel as one JSON text: one parameter and one prepared statement, whatever the number of calls.
_FINISH = {
    "postgresql": text("""
        UPDATE calls SET status = v.status, outcome = v.outcome, error = v.error, usage = v.usage,
            worker = :owner, ended_at = :now, lease_owner = NULL, lease_until = NULL
        FROM json_to_recordset(CAST(:rows AS json))
            AS v(id bigint, status text, outcome json, error json, usage json)
        WHERE calls.id = v.id AND CASE calls.status WHEN 'leased' THEN calls.lease_owner = :owner ELSE false END
        RETURNING calls.id
    """),
    "sqlite": text("""
        UPDATE calls SET status = json_extract(v.value, '$.status'), outcome = json_extract(v.value, '$.outcome'),
            error = json_extract(v.value, '$.error'), usage = json_extract(v.value, '$.usage'),
            worker = :owner, ended_at = :now, lease_owner = NULL, lease_until = NULL
        FROM json_each(:rows) AS v
        WHERE calls.id = json_extract(v.value, '$.id')
            AND CASE calls.status WHEN 'leased' THEN calls.lease_owner = :owner ELSE false END
        RETURNING calls.id
    """),
}
