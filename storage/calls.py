"""Leases of calls: claimed in one statement, renewed, given back or expired; their outcomes are `storage.outcomes`.

An owner is the id of one life of a worker process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, and_, bindparam, case, false, select, text, update

from reasoning.records import CallError, CallSpec, CallStatus
from storage.lookup import NAMED, id_list, look_up_by_key
from storage.outcomes import Ended, Written, finish
from storage.portable import any_of
from storage.tables import Call, Job, Query

__all__ = [
    "ALONE_DEATHS",
    "POISON_DEATHS",
    "Claimed",
    "Ended",
    "Expired",
    "Loose",
    "Written",
    "claim",
    "expire_leases",
    "finish",
    "held",
    "need_alone",
    "release",
    "renew",
]

_CALLS = Call.__table__
_QUERIES = Query.__table__
_JOBS = Job.__table__

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
    select(
        and_(
            _QUERIES.c.status == "running",
            _JOBS.c.status.in_(("running", "cancelling")),
            _JOBS.c.killed_at.is_(None),
        )
    )
    .where(_QUERIES.c.id == _CALLS.c.query_id, _JOBS.c.id == _QUERIES.c.job_id)
    .scalar_subquery()
)
"""Somebody still waits for the call: its query runs and its job was not given up. A pause stops admission, and so
does a cancel, not what runs already.

A scalar subquery is looked up row by row. As a join, a database without statistics begins with all running
queries instead of the few calls that are named.
"""


def claim(
    conn: Connection, call_ids: Iterable[int], owner: str, now: float, lease_s: float, *, alone: bool = False
) -> list[Claimed]:
    """Lease those of the calls that are queued, or whose lease ran out (which counts as a death), in id order.

    Calls that ended, that a living owner holds or that nobody waits for are left out, and so are calls with
    two deaths unless `alone`: see `need_alone`.
    """
    look_up_by_key(conn)
    parameters = {
        "ids": id_list(conn, call_ids),
        "owner": owner,
        "now": now,
        "until": now + lease_s,
        "most": ALONE_DEATHS if alone else ALONE_DEATHS - 1,
    }
    rows = conn.execute(_CLAIM[conn.dialect.name], parameters).all()
    return sorted((_claimed(row) for row in rows), key=lambda call: call.id)


def need_alone(conn: Connection, call_ids: Iterable[int], now: float) -> list[int]:
    """Those of the calls, left out by `claim`, that it takes with `alone`, in id order."""
    parameters = {"ids": id_list(conn, call_ids), "now": now, "most": ALONE_DEATHS}
    return sorted(conn.scalars(_NEED_ALONE[conn.dialect.name], parameters))


def renew(conn: Connection, call_ids: Iterable[int], owner: str, until: float) -> set[int]:
    """Move the end of the leases; the ids returned are still the owner's, the others are lost."""
    statement = update(_CALLS).where(_own(call_ids, owner)).values(lease_until=until).returning(_CALLS.c.id)
    return set(conn.scalars(statement))


def held(conn: Connection, call_ids: Iterable[int], owner: str) -> set[int]:
    """Those of the calls that the owner still holds; one that was cancelled or taken over is missing."""
    return set(conn.scalars(select(_CALLS.c.id).where(_own(call_ids, owner))))


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


def _own(call_ids: Iterable[int], owner: str) -> ColumnElement[bool]:
    # A case for the same reason as in `_TAKEABLE`.
    mine = case((_CALLS.c.status == _LEASED, _CALLS.c.lease_owner == owner), else_=false())
    return and_(any_of(_CALLS.c.id, call_ids), mine)


def _claimed(row: Any) -> Claimed:
    spec = CallSpec.from_json(row.key, row.kind, row.stage, row.round, row.request)
    return Claimed(row.id, row.query_id, row.job_id, row.model, spec, row.attempts, row.deaths)


def _poison(row: Any) -> dict[str, Any]:
    error = CallError(
        code="poison_call",
        message=f"The worker died {POISON_DEATHS} times with call {row.key} in hand, the last time with no other "
        "call beside it. Look at the worker's log; retry the query once the cause is gone.",
        attempts=row.attempts,
    )
    return error.to_json()


# The conditions on the status are cases so that no index on it can serve them: the calls are named by id.
_MOST = bindparam("most", type_=Integer())
_NOW = bindparam("now", type_=_CALLS.c.lease_until.type)
_TAKEABLE = case(
    (_CALLS.c.status == _QUEUED, _CALLS.c.deaths <= _MOST),
    (_CALLS.c.status == _LEASED, and_(_CALLS.c.lease_until < _NOW, _CALLS.c.deaths < _MOST)),
    else_=false(),
)
"""Queued, or leased with the lease run out, with at most so many deaths, one by this claim included."""

_CLAIM = {
    name: update(_CALLS)
    .where(text(named.format("calls")), _TAKEABLE, _WANTED)
    .values(
        status=_LEASED,
        lease_owner=bindparam("owner"),
        lease_until=bindparam("until"),
        started_at=_NOW,
        attempts=_CALLS.c.attempts + 1,
        deaths=_CALLS.c.deaths + case((_CALLS.c.status == _LEASED, 1), else_=0),
    )
    .returning(*_CLAIMED)
    for name, named in NAMED.items()
}
_NEED_ALONE = {
    name: select(_CALLS.c.id).where(text(named.format("calls")), _TAKEABLE, _WANTED) for name, named in NAMED.items()
}
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
