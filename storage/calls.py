"""Leases of calls: claimed in one statement, renewed, given back or expired; their outcomes are `storage.outcomes`.

An owner is the id of one life of a worker process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, false, select, update

from reasoning.records import CallError, CallSpec, CallStatus
from storage.hot import hot, id_list, together
from storage.outcomes import Ended, Written, finish
from storage.portable import any_of
from storage.tables import Call

__all__ = [
    "ALONE_DEATHS",
    "POISON_DEATHS",
    "Asker",
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

ALONE_DEATHS = 2
"""A call in hand at so many deaths runs with no other call beside it."""
POISON_DEATHS = 3
"""A call in hand at so many deaths is failed as `poison_call`."""

_QUEUED = CallStatus.QUEUED.value
_LEASED = CallStatus.LEASED.value


@dataclass(frozen=True, slots=True)
class Asker:
    """The query that a call belongs to, as stored, and what its job says about it."""

    custom_id: str
    body: Mapping[str, Any]
    deadline_at: float | None
    """Seconds since the epoch at which it must have answered."""
    policy_digest: str
    priority: str


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
    asker: Asker


@dataclass(frozen=True, slots=True)
class Loose:
    """A call without an owner: to be sent again, or failed so that its query must be planned again."""

    id: int
    query_id: int
    job_id: str
    model: str
    kind: str


_LOOSE = (_CALLS.c.id, _CALLS.c.query_id, _CALLS.c.job_id, _CALLS.c.model, _CALLS.c.kind)


def claim(
    conn: Connection, call_ids: Iterable[int], owner: str, now: float, lease_s: float, *, alone: bool = False
) -> list[Claimed]:
    """Lease those of the calls that are queued, or whose lease ran out (which counts as a death), in id order.

    Calls that ended, that a living owner holds or that nobody waits for are left out, and so are calls with
    two deaths unless `alone`: see `need_alone`.
    """
    parameters = {
        "ids": id_list(conn, call_ids),
        "owner": owner,
        "now": now,
        "until": now + lease_s,
        "most": ALONE_DEATHS if alone else ALONE_DEATHS - 1,
    }
    (rows,) = together(conn, [(_CLAIM, parameters)])
    return sorted((_claimed(row) for row in rows), key=lambda call: call.id)


def need_alone(conn: Connection, call_ids: Iterable[int], now: float) -> list[int]:
    """Those of the calls, left out by `claim`, that it takes with `alone`, in id order."""
    parameters = {"ids": id_list(conn, call_ids), "now": now, "most": ALONE_DEATHS}
    (rows,) = together(conn, [(_NEED_ALONE, parameters)])
    return sorted(row.id for row in rows)


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
    asker = Asker(row.custom_id, row.body, row.deadline_at, row.policy_digest, row.priority)
    return Claimed(row.id, row.query_id, row.job_id, row.model, spec, row.attempts, row.deaths, asker)


def _poison(row: Any) -> dict[str, Any]:
    error = CallError(
        code="poison_call",
        message=f"The worker died {POISON_DEATHS} times with call {row.key} in hand, the last time with no other "
        "call beside it. Look at the worker's log; retry the query once the cause is gone.",
        attempts=row.attempts,
    )
    return error.to_json()


# The conditions on the status are cases so that no index on it can serve them: the calls are named by id. That
# somebody waits for the call (its query runs and its job was not given up; a pause stops admission, and so does a
# cancel, not what runs already) is looked up row by row: as a join, a database without statistics begins with all
# running queries.
_TAKEABLE = """calls.id IN (:ids)
            AND CASE calls.status
                WHEN 'queued' THEN calls.deaths <= :most
                WHEN 'leased' THEN calls.lease_until < :now AND calls.deaths < :most
                ELSE false END
            AND (SELECT queries.status = 'running'
                    AND jobs.status IN ('running', 'cancelling') AND jobs.killed_at IS NULL
                FROM queries, jobs WHERE queries.id = calls.query_id AND jobs.id = queries.job_id)"""
_LEASE = """UPDATE calls SET status = 'leased', lease_owner = :owner, lease_until = :until, started_at = :now,
            attempts = attempts + 1, deaths = deaths + CASE status WHEN 'leased' THEN 1 ELSE 0 END
        WHERE {takeable}
        RETURNING calls.id, query_id, calls.job_id, calls.model, attempts, deaths,
            key, kind, calls.stage, round, request""".replace("{takeable}", _TAKEABLE)
_CLAIM = hot(
    """WITH taken AS ({lease})
        SELECT taken.*, queries.custom_id, queries.body, queries.deadline_at, jobs.policy_digest, jobs.priority
        FROM taken JOIN queries ON queries.id = taken.query_id JOIN jobs ON jobs.id = queries.job_id""".replace(
        "{lease}", _LEASE
    ),
    """{lease},
            (SELECT custom_id FROM queries WHERE queries.id = query_id) AS custom_id,
            (SELECT body FROM queries WHERE queries.id = query_id) AS body,
            (SELECT deadline_at FROM queries WHERE queries.id = query_id) AS deadline_at,
            (SELECT policy_digest FROM jobs WHERE jobs.id = calls.job_id) AS policy_digest,
            (SELECT priority FROM jobs WHERE jobs.id = calls.job_id) AS priority""".replace("{lease}", _LEASE),
    json=("request", "body"),
)
_NEED_ALONE = hot("SELECT calls.id FROM calls WHERE {takeable}".replace("{takeable}", _TAKEABLE))
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
