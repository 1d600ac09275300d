"""The legal moves of every status, and the only functions that make them.

A move that came too late (the row has ended, or was moved by somebody else) is no error: it changes nothing
and is not among the moved rows. A move that no table allows is a bug and raises.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, bindparam, select, update

from reasoning.errors import InvariantBroken, nearest
from storage.hot import Step, hot, row_list
from storage.portable import any_of
from storage.tables import BulkAction, Call, Job, JobCounters, Query, Slot, Worker

Moves = Mapping[str, frozenset[str]]
"""From a status to those that may follow it."""


def _moves(**following: str) -> Moves:
    return {status: frozenset(to.split()) for status, to in following.items()}


JOB_MOVES = _moves(
    validating="running failed cancelling",  # failed: a bad line under on_bad_line=fail, or an unreadable file
    running="finalizing cancelling",  # finalizing: every query ended, or the job's time is over
    cancelling="finalizing",  # nothing runs any more
    finalizing="completed expired cancelled",  # the files are written; the reason decides which
    completed="running",  # retry of the queries that failed
    expired="running",
    cancelled="running",
    failed="",  # nothing of it was accepted: a corrected file is a new job
)
QUERY_MOVES = _moves(
    waiting="running done cancelled expired failed",  # done: the result of an earlier run; failed: a bad line
    running="done degraded failed cancelled expired",
    done="",
    degraded="",
    failed="waiting",  # retry
    cancelled="waiting",
    expired="waiting",
)
CALL_MOVES = _moves(
    queued="leased failed cancelled",  # failed: out of deaths or of time before anybody took it
    leased="queued done failed cancelled",  # queued: given back, or its lease ran out
    done="",  # outcomes are written once
    failed="",
    cancelled="",
)
SLOT_MOVES = _moves(
    pending="fired skipped missed failed cancelled",  # failed: no job could be made of it
    fired="done failed cancelled",
    skipped="",
    missed="",
    done="",
    failed="",
    cancelled="",
)
BULK_MOVES = _moves(
    running="done stopped failed",  # failed: it can go on no longer, as when the results were removed
    done="",
    stopped="",
    failed="",
)
WORKER_MOVES = _moves(
    starting="ready draining stopped",
    ready="draining stopped",
    draining="ready stopped",  # ready: somebody changed their mind
    stopped="",
)

JOB_ENDED = frozenset({"completed", "failed", "cancelled", "expired"})
QUERY_ENDED = frozenset({"done", "degraded", "failed", "cancelled", "expired"})
CALL_ENDED = frozenset({"done", "failed", "cancelled"})
SLOT_ENDED = frozenset({"skipped", "missed", "done", "failed", "cancelled"})

_JOBS = Job.__table__
_COUNTERS = JobCounters.__table__
_QUERIES = Query.__table__
_CALLS = Call.__table__
_SLOTS = Slot.__table__
_BULK = BulkAction.__table__
_WORKERS = Worker.__table__

_LOCKED_QUERIES = select(_QUERIES.c.id, _QUERIES.c.job_id, _QUERIES.c.status).order_by(_QUERIES.c.id).with_for_update()


def before(moves: Moves, to: str) -> list[str]:
    """The statuses from which `to` is legal, for a guard `status IN (...)`.

    Raises:
        InvariantBroken: there is no such status.
    """
    _check_status(moves, to)
    return sorted(status for status, following in moves.items() if to in following)


@dataclass(frozen=True, slots=True)
class QueryMove:
    """One wanted move of a query."""

    id: int
    job_id: str
    to: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Further columns written with it: answer, error, usage, path, ..."""
    seen: str | None = None
    """The status that the decision rests on; when the row has another by now, it is not moved."""


def move_queries(conn: Connection, moves: Sequence[QueryMove], now: float) -> set[int]:
    """Move queries and their jobs' counters together; the ids that moved.

    The rows are locked in id order first, so that of two callers one sees what the other did. Counters are
    changed last, one update per job, because all transactions of a job meet there.

    Raises:
        InvariantBroken: a move that is legal from no status that the row may have had, or an unknown status.
    """
    wanted = {move.id: move for move in moves}
    for move in moves:
        _check_status(QUERY_MOVES, move.to)
    rows = conn.execute(_LOCKED_QUERIES.where(any_of(_QUERIES.c.id, sorted(wanted)))).all() if wanted else ()
    moved: list[QueryMove] = []
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        move = wanted[row.id]
        if _may_move(row.status, move, row.job_id):
            moved.append(move)
            counts[row.job_id][row.status] -= 1
            counts[row.job_id][move.to] += 1
    _write_queries(conn, moved, now)
    for job_id in sorted(counts):
        add_counts(conn, job_id, counts[job_id])
    return {move.id for move in moved}


def end_steps(moves: Sequence[QueryMove], usage: Mapping[str, Mapping[str, float]], now: float) -> list[Step]:
    """End queries that this transaction has locked while they were running, and count them in their jobs.

    `usage` is added to the counters of each job. The last statements, one for each job because all its transactions
    meet there, return `job_id` and `unfinished`: its queries that have not ended.

    Raises:
        InvariantBroken: a running query cannot become that.
    """
    counts: dict[str, dict[str, float]] = {job_id: dict(sums) for job_id, sums in usage.items()}
    for move in moves:
        _may_move("running", move, move.job_id)
        sums = counts.setdefault(move.job_id, {})
        sums["running"] = sums.get("running", 0) - 1
        sums[move.to] = sums.get(move.to, 0) + 1
    rows = [{"id": move.id, "status": move.to, **move.columns} for move in moves]
    return [
        (_END, {"rows": row_list(rows), "now": now}),
        *((_COUNT, {**_NOTHING, **counts[job_id], "job_id": job_id}) for job_id in sorted(counts)),
    ]


def _may_move(status: str, move: QueryMove, job_id: str) -> bool:
    if job_id != move.job_id:
        raise InvariantBroken(f"query {move.id} belongs to job {job_id}, not to {move.job_id}")
    if move.seen is not None and status != move.seen:
        return False
    if move.to in QUERY_MOVES[status]:
        return True
    if status in QUERY_ENDED or status == move.to:
        return False
    raise InvariantBroken(f"query {move.id} of job {job_id} is {status} and cannot become {move.to}")


def _write_queries(conn: Connection, moved: Iterable[QueryMove], now: float) -> None:
    """One statement for all moves that write the same values, one batch for those that write the same columns."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for move in moved:
        values = {"status": move.to, **_query_times(move.to, now), **_storable(move.columns)}
        groups[tuple(sorted(values))].append({"row_id": move.id, **values})
    for names, rows in groups.items():
        first = {name: rows[0][name] for name in names}
        if all(row[name] == first[name] for row in rows for name in names):
            ids = any_of(_QUERIES.c.id, [row["row_id"] for row in rows])
            conn.execute(update(_QUERIES).where(ids).values(first))
        else:
            statement = update(_QUERIES).where(_QUERIES.c.id == bindparam("row_id"))
            conn.execute(statement.values({name: bindparam(name) for name in names}), rows)


def _query_times(to: str, now: float) -> dict[str, Any]:
    if to == "waiting":
        return {"started_at": None, "ended_at": None}
    return {"started_at": now} if to == "running" else {"ended_at": now}


def _storable(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Text without NUL, which a model may write and Postgres cannot hold."""
    return {
        name: value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value
        for name, value in columns.items()
    }


def add_counts(conn: Connection, job_id: str, increments: Mapping[str, float]) -> None:
    """Add to counters of a job, as ingest does for the rows it inserts (`total` and a status)."""
    values = {name: _COUNTERS.c[name] + amount for name, amount in increments.items() if amount}
    if values:
        conn.execute(update(_COUNTERS).where(_COUNTERS.c.job_id == job_id).values(values))


def move_job(conn: Connection, job_id: str, to: str, now: float, reason: str, **columns: Any) -> bool:
    """Move a job and record why; False when its status does not allow it (any more).

    Stamps `started_at`, `finalizing_at`, `cancelling_at` or `ended_at`; a retry clears the last three and `killed_at`.

    Raises:
        InvariantBroken: `to` is no job status.
    """
    stamps: dict[str, dict[str, Any]] = {
        "running": {
            "started_at": now,
            "finalizing_at": None,
            "cancelling_at": None,
            "killed_at": None,
            "ended_at": None,
        },
        "finalizing": {"finalizing_at": now},
        "cancelling": {"cancelling_at": now},
    }
    values = {"status_reason": reason, **stamps.get(to, {"ended_at": now}), **columns}
    return bool(_move(conn, _JOBS, JOB_MOVES, [job_id], to, values))


def move_calls(conn: Connection, ids: Iterable[int], to: str, now: float, **columns: Any) -> set[int]:
    """Move calls; the ids that moved. Leases and outcomes carry their own fencing in `storage.calls`.

    A call that goes back to `queued` loses its lease; one that ends is stamped.

    Raises:
        InvariantBroken: `to` is no call status.
    """
    stamps: dict[str, dict[str, Any]] = {
        "queued": {"lease_owner": None, "lease_until": None},
        "leased": {"started_at": now},
    }
    return set(_move(conn, _CALLS, CALL_MOVES, ids, to, {**stamps.get(to, {"ended_at": now}), **columns}))


def move_slot(conn: Connection, slot_id: int, to: str, now: float, reason: str | None = None, **columns: Any) -> bool:
    """Move a slot; False when its status does not allow it (any more). Raises InvariantBroken on no status."""
    stamps = {"ended_at": now} if to in SLOT_ENDED else {}
    values = {**({"reason": reason} if reason is not None else {}), **stamps, **columns}
    return bool(_move(conn, _SLOTS, SLOT_MOVES, [slot_id], to, values))


def move_bulk(conn: Connection, action_id: int, to: str, now: float, note: str | None = None) -> bool:
    """End a bulk action and record why; False when it has ended already. Raises InvariantBroken on no status."""
    return bool(_move(conn, _BULK, BULK_MOVES, [action_id], to, {"note": note, "ended_at": now}))


def move_worker(conn: Connection, worker_id: str, to: str, now: float, **columns: Any) -> bool:
    """Move a worker's heartbeat row; False when its state does not allow it. Raises InvariantBroken on no state."""
    values = {"beat_at": now, **({"stopped_at": now} if to == "stopped" else {}), **columns}
    return bool(_move(conn, _WORKERS, WORKER_MOVES, [worker_id], to, values))


def _move(
    conn: Connection, rows: Table, moves: Moves, ids: Iterable[Any], to: str, values: Mapping[str, Any]
) -> list[Any]:
    """The guarded update behind every move but that of queries; the ids that moved."""
    status = rows.c["state" if rows is _WORKERS else "status"]
    statement = (
        update(rows)
        .where(any_of(rows.c.id, ids), status.in_(before(moves, to)))
        .values({status.name: to, **values})
        .returning(rows.c.id)
    )
    return list(conn.scalars(statement))


def _check_status(moves: Moves, to: str) -> None:
    if to not in moves:
        raise InvariantBroken(f'there is no status "{to}".{nearest(to, moves)}')


_END = hot(
    """UPDATE queries SET ended_at = :now, status = v.status, answer = v.answer, format_ok = v.format_ok,
            degraded_reason = v.degraded_reason, path = v.path, usage = v.usage, error = v.error
        FROM json_to_recordset(CAST(:rows AS json)) AS v(id bigint, status text, answer text, format_ok boolean,
            degraded_reason text, path json, usage json, error json)
        WHERE queries.id = v.id AND queries.status = 'running'""",
    """UPDATE queries SET ended_at = :now, status = v.value ->> 'status', answer = v.value ->> 'answer',
            format_ok = v.value ->> 'format_ok', degraded_reason = v.value ->> 'degraded_reason',
            path = v.value ->> 'path', usage = v.value ->> 'usage', error = v.value ->> 'error'
        FROM json_each(:rows) AS v
        WHERE queries.id = v.value ->> 'id' AND queries.status = 'running'""",
)
_COUNTED = [column.name for column in _COUNTERS.c if column.name not in ("job_id", "total", "admitted_tokens")]
_NOTHING = dict.fromkeys(_COUNTED, 0)
_COUNT = hot(
    """UPDATE job_counters SET {sums} WHERE job_id = :job_id
        RETURNING job_id, waiting + running AS unfinished""".replace(
        "{sums}", ", ".join(f"{name} = {name} + :{name}" for name in _COUNTED)
    )
)
