"""Call rows as the planner needs them: all calls of some queries, new calls inserted once, open ones cancelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, delete, select, update

from reasoning.records import Call as CallRecord
from reasoning.records import CallError, CallSpec, CallStatus, Usage, outcome_from_json
from storage.hot import Step, hot, id_list, row_list, together
from storage.policies import Policies
from storage.portable import any_of
from storage.tables import Call, Job, Query

_CALLS = Call.__table__
_QUEUED = (_CALLS.c.id, _CALLS.c.query_id, _CALLS.c.model, _CALLS.c.kind)

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


class Remembered:
    """Finished calls of queries that run, as `plan()` reads them: an outcome never changes, so it is read once.

    Rows remain the truth: what is remembered counts for one life of a query, in which no ended call is removed.
    """

    def __init__(self, most: int = 2048) -> None:
        """At most so many queries; their texts are kept, not their token ids."""
        self.policies = Policies()
        self._most = most
        self._queries: dict[int, tuple[Life, dict[int, CallRecord]]] = {}

    def ids(self, query_ids: Iterable[int]) -> list[int]:
        """Calls of these queries that need not be read."""
        return [call_id for query_id in query_ids if (known := self._queries.get(query_id)) for call_id in known[1]]

    def of(self, query_id: int, life: Life) -> dict[int, CallRecord] | None:
        """The ended calls of the query by id; None when what is remembered is from another life."""
        known = self._queries.get(query_id)
        if known is None:
            return {}
        return known[1] if known[0] == life else None

    def put(self, query_id: int, life: Life, call_id: int, record: CallRecord) -> None:
        """Remember an ended call of the query's present life."""
        if query_id not in self._queries:
            if len(self._queries) >= self._most:
                del self._queries[next(iter(self._queries))]
            self._queries[query_id] = (life, {})
        if any(item.token_ids for item in record.candidates):
            record = replace(record, candidates=tuple(replace(item, token_ids=()) for item in record.candidates))
        self._queries[query_id][1][call_id] = record

    def forget(self, query_ids: Iterable[int]) -> None:
        """The queries ended."""
        for query_id in query_ids:
            self._queries.pop(query_id, None)


Life = tuple[float, int]
"""When a query row was made and how often it was started anew since: SQLite gives row ids away again."""


def lock_running(
    conn: Connection, query_ids: Sequence[int], remembered: Remembered
) -> tuple[Sequence[Any], dict[int, list[CallRecord]]]:
    """Those of the queries that run, locked in id order until the transaction ends, and the calls of each.

    A row tells its query and what its job says; calls come oldest first, as `plan()` reads them.
    """
    ids = id_list(conn, query_ids)
    known = id_list(conn, remembered.ids(query_ids))
    # Two statements: the second must see what was committed while the first waited for its locks.
    rows, calls = together(conn, [(_LOCK, {"ids": ids}), (_READ, {"ids": ids, "known": known})])
    found, stale = _remembered_calls(rows, remembered)
    lives = {row.id: (row.created_at, row.retries) for row in rows}
    for row in calls:
        record = to_record(row)
        if row.query_id in found:
            found[row.query_id][row.id] = record
            if record.status is CallStatus.DONE:
                remembered.put(row.query_id, lives[row.query_id], row.id, record)
    ordered = {query_id: [of[call_id] for call_id in sorted(of)] for query_id, of in found.items()}
    return rows, ordered | (calls_of(conn, stale) if stale else {})


def _remembered_calls(
    rows: Iterable[Any], remembered: Remembered
) -> tuple[dict[int, dict[int, CallRecord]], list[int]]:
    """What is remembered of the queries, and those of which another life was."""
    found: dict[int, dict[int, CallRecord]] = {}
    stale = []
    for row in rows:
        known = remembered.of(row.id, (row.created_at, row.retries))
        if known is None:
            stale.append(row.id)
        else:
            found[row.id] = dict(known)
    remembered.forget(stale)
    return found, stale


def last_workers_step(conn: Connection, query_ids: Iterable[int]) -> Step:
    """Tells for each query, as `query_id` and `worker`, who wrote its outcomes, the newest last."""
    return _LAST_WORKERS, {"ids": id_list(conn, query_ids)}


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


def insert_step(planned: Iterable[PlannedCall], now: float) -> Step:
    """Inserts the calls that are not there yet and returns those (see `queued_call`): planned twice, inserted once."""
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
    return _INSERT, {"rows": row_list(rows), "now": now}


def queued_call(row: Any) -> QueuedCall:
    """The record of a row of `insert_step`."""
    return QueuedCall(row.id, row.query_id, row.model, row.kind)


def cancel_step(conn: Connection, query_ids: Iterable[int], now: float) -> Step:
    """Ends the calls that nobody waits for any more; a worker that holds one finds its lease gone."""
    return _CANCEL, {"ids": id_list(conn, query_ids), "now": now}


def cancel_open(conn: Connection, query_ids: Sequence[int], now: float) -> None:
    """Do what `cancel_step` says."""
    if query_ids:
        together(conn, [cancel_step(conn, query_ids, now)])


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


_LOCK = hot(
    """SELECT queries.id, queries.job_id, queries.custom_id, queries.body, queries.stage, queries.deadline_at,
            queries.created_at, queries.retries, jobs.model, jobs.policy_digest, jobs.priority, jobs.expires_at
        FROM queries JOIN jobs ON jobs.id = queries.job_id
        WHERE queries.status = 'running' AND queries.id IN (:ids) ORDER BY queries.id FOR UPDATE OF queries""",
    json=("body",),
)
_FRESH = """SELECT id, query_id, key, kind, stage, round, status, request, outcome, error, usage
        FROM calls WHERE query_id IN (:ids) AND id NOT IN (SELECT {known}) ORDER BY id"""
_READ = hot(
    _FRESH.replace("{known}", "unnest(CAST(:known AS bigint[]))"),
    _FRESH.replace("{known}", "value FROM json_each(:known)"),
    json=("request", "outcome", "error", "usage"),
)
_LAST_WORKERS = hot(
    "SELECT query_id, worker FROM calls WHERE query_id IN (:ids) AND worker IS NOT NULL ORDER BY ended_at"
)
_CANCEL = hot(
    """UPDATE calls SET status = 'cancelled', ended_at = :now, lease_owner = NULL, lease_until = NULL
        WHERE query_id IN (:ids) AND status IN ('queued', 'leased')"""
)
_INSERT = hot(
    """INSERT INTO calls (query_id, job_id, model, key, kind, stage, round, request,
            status, attempts, deaths, sends, sent_at)
        SELECT query_id, job_id, model, key, kind, stage, round, request, 'queued', 0, 0, 1, :now
        FROM json_to_recordset(CAST(:rows AS json)) AS v(query_id bigint, job_id text, model text, key text,
            kind text, stage text, round int, request json)
        ON CONFLICT (query_id, key) DO NOTHING RETURNING id, query_id, model, kind""",
    """INSERT INTO calls (query_id, job_id, model, key, kind, stage, round, request,
            status, attempts, deaths, sends, sent_at)
        SELECT value ->> 'query_id', value ->> 'job_id', value ->> 'model', value ->> 'key', value ->> 'kind',
            value ->> 'stage', value ->> 'round', value ->> 'request', 'queued', 0, 0, 1, :now
        FROM json_each(:rows) WHERE true
        ON CONFLICT (query_id, key) DO NOTHING RETURNING id, query_id, model, kind""",
)
