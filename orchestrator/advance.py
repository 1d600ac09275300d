"""Advance: read the rows of some queries, plan each again, write what follows, then send the messages.

Many queries in one transaction. Whoever dies in between changes nothing: the next advance reads the same
rows and decides the same, and a call that is there already is not inserted twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import Any

import structlog
from sqlalchemy import Connection

from orchestrator.accounting import usage_of
from reasoning.decisions import DEADLINE
from reasoning.errors import StagebeamError
from reasoning.plan import Answer, Decision, Failed, Next, plan
from reasoning.policy import Policy
from reasoning.records import Call, CallError, CallKind
from storage import jobs, planning, queries, transitions
from storage.causes import caused
from storage.database import Database
from storage.hot import Step, together
from storage.planning import PlannedCall, QueuedCall, Remembered

log = structlog.get_logger()

BURST = 256
"""Calls per message at most: enough that the broker's cost per message no longer shows."""

JOB_EXPIRED = "job_expired"
"""Code of queries that the time of their job cut off, whether they ran by then or waited."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Calls that a message must wake workers for, after the commit."""

    model: str
    kind: str
    priority: str
    call_ids: tuple[int, ...]
    worker: str | None = None
    """The worker that holds their image and prefix; None means any worker of the model."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is known of the workers when calls are sent."""

    workers: int = 2
    roomy: Mapping[str, str] = field(default_factory=dict)
    """Workers with room for more, by id, and the model of each; empty when there is only one worker anyway."""
    busy: frozenset[str] = frozenset()
    """Models whose workers have plenty to do: their stages go out as one call each."""

    @property
    def lanes(self) -> int:
        """Messages that a burst is spread over at least, so that every worker gets a part; one worker gets it whole."""
        return 2 * self.workers if self.workers > 1 else 1


UNKNOWN = Fleet()
"""What is assumed when nobody looked."""


@dataclass(slots=True)
class Advanced:
    """What one advance did."""

    outgoing: list[Outgoing] = field(default_factory=list)
    ended: int = 0
    """Queries that ended, which makes room for others."""
    over: list[str] = field(default_factory=list)
    """Jobs whose last query ended."""


@dataclass(slots=True)
class _Batch:
    planned: list[PlannedCall] = field(default_factory=list)
    moves: list[transitions.QueryMove] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    """Queries that ended while calls may still be open."""
    usage: dict[str, dict[str, float]] = field(default_factory=dict)
    """What the ended queries used, by job."""
    priorities: dict[int, str] = field(default_factory=dict)
    stages: dict[int, str] = field(default_factory=dict)


def advance(
    db: Database,
    query_ids: Iterable[int],
    now: float,
    *,
    idle: bool = False,
    fleet: Fleet = UNKNOWN,
    remembered: Remembered | None = None,
) -> Advanced:
    """Plan the queries again and write the next calls or the end of each.

    Ids of queries that no longer run are ignored. `idle` says that workers wait for work, so that a stage
    may go out as several calls; `fleet` says how calls are best sent; what `remembered` holds is not read again.
    """
    with db.write() as conn:
        return advance_in(conn, sorted(set(query_ids)), now, idle=idle, fleet=fleet, remembered=remembered)


def advance_in(
    conn: Connection,
    query_ids: Sequence[int],
    now: float,
    *,
    idle: bool = False,
    fleet: Fleet = UNKNOWN,
    remembered: Remembered | None = None,
) -> Advanced:
    """`advance` at the end of a transaction of the caller, which it commits; send `outgoing` then."""
    remembered = remembered or Remembered()
    rows, calls = planning.lock_running(conn, query_ids, remembered)
    policies = remembered.policies.of(conn, {row.policy_digest: row.job_id for row in rows})
    batch = _Batch()
    for row in rows:
        policy = policies[row.policy_digest].with_overrides(row.body.get("policy") or {})
        _plan_query(row, policy, calls.get(row.id, []), batch, now, idle=idle and row.model not in fleet.busy)
    done = _write(conn, batch, now, fleet)
    remembered.forget(move.id for move in batch.moves)
    return done


def _write(conn: Connection, batch: _Batch, now: float, fleet: Fleet) -> Advanced:
    """All that was decided, and the end of the transaction, in one go."""
    inserts: list[Step] = [planning.insert_step(batch.planned, now)] if batch.planned else []
    if batch.planned and fleet.roomy:
        inserts.append(planning.last_workers_step(conn, {item.query_id for item in batch.planned}))
    changes: list[Step] = [queries.stages_step(batch.stages)] if batch.stages else []
    if batch.stopped:
        changes.append(planning.cancel_step(conn, batch.stopped, now))
    if batch.moves:
        changes += transitions.end_steps(batch.moves, batch.usage, now)
    found = together(conn, [*inserts, *changes], commit=True) if inserts or changes else []
    done = Advanced(ended=len(batch.moves))
    if batch.moves:
        jobs_moved = len({move.job_id for move in batch.moves})
        done.over = [row.job_id for (row,) in found[-jobs_moved:] if not row.unfinished]
    if batch.planned:
        queued = [planning.queued_call(row) for row in found[0]]
        holders = {row.query_id: row.worker for row in found[1]} if fleet.roomy else {}
        done.outgoing = chunked(queued, batch.priorities, fleet, holders)
    return done


def _plan_query(row: Any, policy: Policy, calls: list[Call], batch: _Batch, now: float, *, idle: bool) -> None:
    query = queries.to_record(row.custom_id, row.body)
    over = any(at is not None and at < now for at in (row.deadline_at, row.expires_at))
    limit = DEADLINE if over else None
    try:
        decision: Decision = plan(policy, query, calls, limit=limit, idle=idle)
    except StagebeamError as error:
        # A row that cannot be planned is a defect of ours or of the row: this query ends, the others go on.
        log.error("A query could not be planned.", action="advance.unplannable", query_id=row.id, error=str(error))
        decision = Failed(CallError("unplannable", str(error)), row.stage or "")
    if isinstance(decision, Next):
        _add_calls(row, decision, policy, batch)
        return
    usage = usage_of(calls, decision)
    batch.moves.append(_end(row, decision, usage, now))
    if any(not call.ended for call in calls):
        batch.stopped.append(row.id)
    sums = batch.usage.setdefault(row.job_id, defaultdict(int))
    for name in jobs.USAGE_COLUMNS:
        sums[name] += usage.get(name, 0)


def _add_calls(row: Any, decision: Next, policy: Policy, batch: _Batch) -> None:
    for spec in decision.calls:
        judged = spec.kind is not CallKind.GENERATE
        model = policy.judge_model if judged and policy.judge_model else row.model
        batch.planned.append(PlannedCall(row.id, row.job_id, model, spec))
    batch.priorities[row.id] = row.priority
    if decision.calls and decision.calls[-1].stage != row.stage:
        batch.stages[row.id] = decision.calls[-1].stage


def _end(row: Any, decision: Answer | Failed, usage: Mapping[str, Any], now: float) -> transitions.QueryMove:
    if isinstance(decision, Answer):
        columns = {
            "answer": decision.text,
            "format_ok": decision.format_ok,
            "degraded_reason": decision.degraded,
            "path": [ref.to_json() for ref in decision.path],
            "usage": dict(usage),
        }
        return transitions.QueryMove(row.id, row.job_id, "degraded" if decision.degraded else "done", columns)
    error = {**decision.error.to_json(), "stage": decision.stage}
    expired = decision.error.code == DEADLINE
    if expired and _out_of_job_time(row, now):
        error["code"] = JOB_EXPIRED
    columns = {"error": caused(error), "usage": dict(usage)}
    return transitions.QueryMove(row.id, row.job_id, "expired" if expired else "failed", columns)


def _out_of_job_time(row: Any, now: float) -> bool:
    """Whether the time of the job, and not that of the query alone, ended it."""
    own: float = inf if row.deadline_at is None else row.deadline_at
    return row.expires_at is not None and row.expires_at < min(now, own)


def chunked(
    calls: Sequence[QueuedCall],
    priorities: Mapping[int, str],
    fleet: Fleet = UNKNOWN,
    holders: Mapping[int, str] = MappingProxyType({}),
) -> list[Outgoing]:
    """Messages for the calls: one call each when there are few, a handful of the same kind when there are many.

    A call goes to the worker that did the query's last one, while that one has room: it holds the image
    features and the prefix. Correctness never depends on it.
    """
    groups: dict[tuple[str, str, str, str | None], list[int]] = defaultdict(list)
    for call in calls:
        kind = "generate" if call.kind == CallKind.GENERATE.value else "judge"
        holder = holders.get(call.query_id, "")
        worker = holder if fleet.roomy.get(holder) == call.model else None
        groups[call.model, kind, priorities[call.query_id], worker].append(call.id)
    outgoing = []
    for (model, kind, priority, worker), ids in groups.items():
        size = min(BURST, max(1, -(-len(ids) // fleet.lanes)))
        outgoing += [
            Outgoing(model, kind, priority, tuple(ids[start : start + size]), worker)
            for start in range(0, len(ids), size)
        ]
    return outgoing
