"""Dispatch: which waiting queries may start. Rows wait in storage; the broker holds at most a window per model.

Between jobs: interactive before batch before background, then weighted fair by tokens. A job with nothing
running gets one query in even when the window is full, so that none starves another for longer than a stage.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator import limits
from orchestrator.advance import Advanced, advance_in
from storage import fleet, jobs, queries, transitions
from storage.database import Database
from storage.jobs import JobLoad
from storage.settings import Settings
from workers.messages import PRIORITIES

ADMIT_AT_ONCE = 512
"""Queries admitted per transaction, so that no lock is held for long."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many queries of a job to admit, and its virtual clock after that."""

    job_id: str
    count: int
    clock: float


def shares(loads: Sequence[JobLoad], windows: Mapping[str, int]) -> list[Share]:
    """Divide the free part of each model's window among its jobs; pure.

    Start-time fair queuing: every admission moves the job's clock by the tokens that a query of it costs,
    divided by its weight; the job with the earliest clock goes next. A newcomer starts at the earliest clock
    of the others and not at zero, or it would be served alone until it had caught up.
    """
    by_model: dict[str, list[JobLoad]] = defaultdict(list)
    for load in loads:
        by_model[load.model].append(load)
    return [share for model, group in by_model.items() for share in _divide(group, windows.get(model, 0))]


def _divide(group: list[JobLoad], window: int) -> list[Share]:
    if window <= 0:
        return []
    free = window - sum(load.running for load in group)
    started = [load.admitted_tokens for load in group if load.running or load.ended]
    floor = min(started, default=0.0)
    counts: dict[str, int] = defaultdict(int)
    clocks: dict[str, float] = {}
    heap = []
    for place, load in enumerate(group):
        clock = load.admitted_tokens if load.running or load.ended else max(load.admitted_tokens, floor)
        if load.waiting:
            heap.append((PRIORITIES[load.priority], clock, place))
    heapq.heapify(heap)
    while heap:
        rank, clock, place = heapq.heappop(heap)
        load = group[place]
        starving = not load.running and load.job_id not in counts
        if free <= 0 and not starving:
            continue
        counts[load.job_id] += 1
        free -= 1
        clock += cost_of(load) / load.weight
        clocks[load.job_id] = clock
        if counts[load.job_id] < load.waiting:
            heapq.heappush(heap, (rank, clock, place))
    return [Share(job_id, count, clocks[job_id]) for job_id, count in counts.items()]


def cost_of(load: JobLoad) -> float:
    """Expected tokens of one query: what the ended ones cost on average, before that a guess from the policy."""
    if load.ended:
        return max(1.0, load.spent_tokens / load.ended)
    candidates = int(load.policy.get("candidates", 1))
    return max(1.0, candidates * 256.0)


def windows(slots: Mapping[str, int], models: Sequence[str], paused: set[str], settings: Settings) -> dict[str, int]:
    """Queries that may run at once, by model: a multiple of the live workers' slots, nothing while paused."""
    return {
        model: 0
        if model in paused
        else max(settings.window_min, int(slots[model] * settings.window_factor))
        if model in slots
        else settings.window_min
        for model in models
    }


def dispatch(db: Database, settings: Settings, now: float) -> Advanced:
    """Admit as many waiting queries as the windows allow, and plan their first calls in the same transaction."""
    with db.read() as conn:
        loads = [load for load in jobs.loads(conn) if load.waiting or load.running]
        if not any(load.waiting for load in loads):
            return Advanced()
        slots = fleet.live_slots(conn, now, late_s=3 * settings.heartbeat_s)
        loads = limits.capped(loads, limits.in_flight_room(conn, [load.job_id for load in loads]))
        allowed = windows(slots, sorted({load.model for load in loads}), jobs.paused_models(conn), settings)
    done = Advanced()
    policies = {load.job_id: load.policy for load in loads}
    for share in shares(loads, allowed):
        part = _admit(db, share, policies[share.job_id], now)
        done.outgoing += part.outgoing
    return done


def _admit(db: Database, share: Share, policy: Mapping[str, Any], now: float) -> Advanced:
    done = Advanced()
    left = share.count
    while left > 0:
        with db.write() as conn:
            rows = queries.next_waiting(conn, share.job_id, min(left, ADMIT_AT_ONCE))
            moves = [
                transitions.QueryMove(
                    row.id,
                    share.job_id,
                    "running",
                    {"started_at": now, "deadline_at": _deadline(policy, row.body, now)},
                )
                for row in rows
            ]
            admitted = transitions.move_queries(conn, moves, now)
            jobs.charge(conn, share.job_id, share.clock)
            done.outgoing += advance_in(conn, sorted(admitted), now).outgoing
        if len(rows) < min(left, ADMIT_AT_ONCE):
            break
        left -= len(rows)
    return done


def _deadline(policy: Mapping[str, Any], body: Mapping[str, Any], now: float) -> float | None:
    seconds = (body.get("policy") or {}).get("deadline_s", policy.get("deadline_s"))
    return now + seconds if seconds else None
