"""What claimed calls need before they can be rendered: query, policy, and the outcomes they continue."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from reasoning.policy import Policy
from reasoning.records import Call as CallRecord
from reasoning.records import CallKind, CallSpec, CallStatus, outcome_from_json
from reasoning.records import Query as QueryRecord
from reasoning.render import needed_keys
from storage.calls import Claimed
from storage.hot import hot, row_list, together
from storage.policies import Policies
from storage.queries import to_record

OutcomeKey = tuple[str, int, str]
"""Job id, query id and call key. The job id is there because SQLite gives row ids away again."""

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Work:
    """One claimed call with everything that rendering it reads."""

    call: Claimed
    policy: Policy
    query: QueryRecord
    priority: str
    """Of the job."""
    deadline_at: float | None
    """Seconds since the epoch at which the query must have answered."""
    siblings: Mapping[str, CallRecord]
    """The calls that the spec refers to, by key; one that is missing is a bug found in rendering."""


class Bounded(Generic[Key, Value]):
    """The newest `most` values by key. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: dict[Key, Value] = {}
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        with self._lock:
            self._values[key] = value
            if len(self._values) > self._most:
                del self._values[next(iter(self._values))]


class Known:
    """What never changes once read, so that it is read once: policies by digest, outcomes by call."""

    def __init__(self, *, outcomes: int = 8192) -> None:
        self.outcomes: Bounded[OutcomeKey, CallRecord] = Bounded(outcomes)
        self.policies = Policies()


def load_work(conn: Connection, claimed: Sequence[Claimed], known: Known) -> list[Work]:
    """Load what the calls need and this worker has not seen yet, for all of them at once, in their order."""
    if not claimed:
        return []
    policies = known.policies.of(conn, {call.asker.policy_digest: call.job_id for call in claimed})
    outcomes = _outcomes(conn, claimed, known)
    work = []
    for call in claimed:
        asker = call.asker
        policy = policies[asker.policy_digest].with_overrides(asker.body.get("policy") or {})
        query = to_record(asker.custom_id, asker.body)
        siblings = outcomes.get(call.query_id, {})
        work.append(Work(call, policy, query, asker.priority, asker.deadline_at, siblings))
    return work


_PAIRS = hot(
    """SELECT calls.query_id, calls.key, calls.kind, calls.stage, calls.round, calls.outcome
        FROM json_to_recordset(CAST(:rows AS json)) AS v(q bigint, k text)
        JOIN calls ON calls.query_id = v.q AND calls.key = v.k
        WHERE calls.status = 'done'""",
    """SELECT calls.query_id, calls.key, calls.kind, calls.stage, calls.round, calls.outcome
        FROM json_each(:rows) AS v
        CROSS JOIN calls ON calls.query_id = v.value ->> 'q' AND calls.key = v.value ->> 'k'
        WHERE calls.status = 'done'""",
    json=("outcome",),
)


def _outcomes(conn: Connection, claimed: Sequence[Claimed], known: Known) -> dict[int, dict[str, CallRecord]]:
    """The calls that the specs refer to, by query and key, from memory where this worker wrote or read them."""
    found: dict[int, dict[str, CallRecord]] = {}
    missing: dict[tuple[int, str], str] = {}
    for call in claimed:
        for key in needed_keys(call.spec):
            record = known.outcomes.get((call.job_id, call.query_id, key))
            if record is None:
                missing[call.query_id, key] = call.job_id
            else:
                found.setdefault(call.query_id, {})[key] = record
    if missing:
        wanted = row_list([{"q": query_id, "k": key} for query_id, key in missing])
        (rows,) = together(conn, [(_PAIRS, {"rows": wanted})])
        for row in rows:
            record = _record(row)
            found.setdefault(row.query_id, {})[row.key] = record
            known.outcomes.put((missing[row.query_id, row.key], row.query_id, row.key), record)
    return found


def _record(row: Any) -> CallRecord:
    candidates, verdict = outcome_from_json(row.outcome)
    spec = CallSpec(row.key, CallKind(row.kind), row.stage, row.round)
    return CallRecord(spec, CallStatus.DONE, candidates, verdict)
