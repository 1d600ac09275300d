"""Call rows as the planner needs them: all calls of some queries, new calls inserted once, open ones cancelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, delete, select, text, update

from reasoning.records import Call as CallRecord
from reasoning.records import CallError, CallSpec, CallStatus, Usage, outcome_from_json
from storage.portable import any_of
from storage.tables import Call, Job, Query

_CALLS = Call.__table__
_QUEUED = (_CALLS.c.id, _CALLS.c.query_id, _CALLS.c.model, _CALLS.c.kind)
_OPEN = (CallStatus.QUEUED.value, CallStatus.LEASED.value)

_COLUMNS = (
    _CALLS.c.query_id,
    _CALLS.c.key,
    _CALLS.c.kind,
    _CALLS.c.stage,
    _CALLS.c.round,
    _CALLS.c.request,
    _CALLS.c.status,
    _CALLS.c.outcome,
    _CALLS.c.error,
    _CALLS.c.usage,
)
_OF_QUERIES = select(*_COLUMNS).order_by(_CALLS.c.id)


MAX_DOUBLINGS = 4
"""A message that is lost again and again goes out at least every sixteen patiences."""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call to insert: what it must do and whose it is."""

    query_id: int
    job_id: str
    model: str
    spec: CallSpec


@dataclass(frozen=True, slots=True)
class QueuedCall:
    """A call row that a message must wake a worker for."""

    id: int
    query_id: int
    model: str
    kind: str


def calls_of(conn: Connection, query_ids: Sequence[int]) -> dict[int, list[CallRecord]]:
    """The calls of each query, oldest first, as `plan()` reads them."""
    found: dict[int, list[CallRecord]] = defaultdict(list)
    for row in conn.execute(_OF_QUERIES.where(any_of(_CALLS.c.query_id, query_ids))):
        found[row.query_id].append(to_record(row))
    return found


def last_workers(conn: Connection, query_ids: Sequence[int]) -> dict[int, str]:
    """The worker that wrote the newest outcome of each query."""
    statement = (
        select(_CALLS.c.query_id, _CALLS.c.worker)
        .where(any_of(_CALLS.c.query_id, query_ids), _CALLS.c.worker.is_not(None))
        .order_by(_CALLS.c.ended_at)
    )
    return {row.query_id: row.worker for row in conn.execute(statement)}


def to_record(row: Any) -> CallRecord:
    """The record of a call row; token ids and texts as stored."""
    candidates, verdict = outcome_from_json(row.outcome)
    return CallRecord(
        spec=CallSpec.from_json(row.key, row.kind, row.stage, row.round, row.request),
        status=CallStatus(row.status),
        candidates=candidates,
        verdict=verdict,
        error=CallError.from_json(row.error) if row.error else None,
        usage=Usage.from_json(row.usage) if row.usage else Usage(),
    )


def insert_calls(conn: Connection, planned: Iterable[PlannedCall], now: float) -> list[QueuedCall]:
    """Insert the calls that are not there yet and return those; a call planned twice is inserted once.

    All rows travel as one JSON parameter: a statement with thousands of parameters costs more than its work.
    """
    rows = [
        {
            "query_id": item.query_id,
            "job_id": item.job_id,
            "model": item.model,
            "key": item.spec.key,
            "kind": item.spec.kind.value,
            "stage": item.spec.stage,
            "round": item.spec.round,
            "request": item.spec.to_json(),
        }
        for item in planned
    ]
    if not rows:
        return []
    parameters = {"rows": orjson.dumps(rows).decode(), "now": now}
    return [QueuedCall(*row) for row in conn.execute(_INSERT[conn.dialect.name], parameters)]


def cancel_open(conn: Connection, query_ids: Sequence[int], now: float) -> None:
    """End the calls that nobody waits for any more; a worker that holds one finds its lease gone."""
    if query_ids:
        conn.execute(
            update(_CALLS)
            .where(any_of(_CALLS.c.query_id, query_ids), _CALLS.c.status.in_(_OPEN))
            .values(status=CallStatus.CANCELLED.value, ended_at=now, lease_owner=None, lease_until=None)
        )


def delete_calls(conn: Connection, query_ids: Sequence[int]) -> None:
    """Remove all calls of the queries; what they say stands elsewhere."""
    if query_ids:
        conn.execute(delete(_CALLS).where(any_of(_CALLS.c.query_id, query_ids)))


def mark_sent(conn: Connection, call_ids: Sequence[int], now: float) -> list[QueuedCall]:
    """Note that messages for these calls go out again; returns those that still wait for a worker."""
    statement = (
        update(_CALLS)
        .where(any_of(_CALLS.c.id, call_ids), _CALLS.c.status == CallStatus.QUEUED.value)
        .values(sent_at=now, sends=_CALLS.c.sends + 1)
        .returning(*_QUEUED)
    )
    return [QueuedCall(*row) for row in conn.execute(statement)]


def priorities_of(conn: Connection, query_ids: Sequence[int]) -> dict[int, str]:
    """The job priority of each query."""
    queries, jobs = Query.__table__, Job.__table__
    statement = select(queries.c.id, jobs.c.priority).join(jobs, jobs.c.id == queries.c.job_id)
    return {row.id: row.priority for row in conn.execute(statement.where(any_of(queries.c.id, query_ids)))}


def models_waiting(conn: Connection, before: float) -> list[str]:
    """Models with a queued call whose message is older than `before`."""
    queued = _CALLS.c.status == CallStatus.QUEUED.value
    return list(conn.scalars(select(_CALLS.c.model).where(queued, _CALLS.c.sent_at < before).distinct()))


def sent_before(conn: Connection, model: str, now: float, patience_s: float, count: int) -> list[int]:
    """Up to `count` queued calls whose message is older than the patience, which doubles with every sending."""
    statement = (
        select(_CALLS.c.id, _CALLS.c.sent_at, _CALLS.c.sends)
        .where(
            _CALLS.c.status == CallStatus.QUEUED.value,
            _CALLS.c.model == model,
            _CALLS.c.sent_at < now - patience_s,
        )
        .order_by(_CALLS.c.sent_at)
        .limit(count)
    )
    rows = conn.execute(statement)
    return [row.id for row in rows if row.sent_at < now - patience_s * 2 ** min(row.sends - 1, MAX_DOUBLINGS)]


_FIELDS = "query_id, job_id, model, key, kind, stage, round, request"
_EXTRACTED = ", ".join(f"json_extract(v.value, '$.{name}')" for name in _FIELDS.split(", "))
_AFTER = """
    ON CONFLICT (query_id, key) DO NOTHING
    RETURNING id, query_id, model, kind
"""
_INSERT = {
    "postgresql": text(f"""
        INSERT INTO calls ({_FIELDS}, status, attempts, deaths, sends, sent_at)
        SELECT {_FIELDS}, 'queued', 0, 0, 1, :now
        FROM json_to_recordset(CAST(:rows AS json)) AS v(query_id bigint, job_id text, model text, key text,
            kind text, stage text, round int, request json)
        {_AFTER}
    """),  # noqa: S608 - column names only
    "sqlite": text(f"""
        INSERT INTO calls ({_FIELDS}, status, attempts, deaths, sends, sent_at)
        SELECT {_EXTRACTED}, 'queued', 0, 0, 1, :now
        FROM json_each(:rows) AS v WHERE true
        {_AFTER}
    """),  # noqa: S608 - column names only
}
