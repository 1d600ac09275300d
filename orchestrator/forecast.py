"""When a job may end, said only when something honest can be said: one answer for pages, API and command line.

What a model gets done is measured over all its jobs, in tokens of queries that have just ended. Against that stand the
tokens that the job still needs, those of more urgent jobs, which go first, and of its equals as much as fair sharing
lets past before the job is done (`orchestrator.dispatch`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection

from orchestrator.dispatch import cost_of as tokens_of
from orchestrator.estimate import estimate
from reasoning.cost import cost_of
from reasoning.policy import Policy
from storage import fleet, jobs
from storage.jobs import End, JobLoad
from storage.transitions import JOB_ENDED
from workers.messages import PRIORITIES

HALF_LIFE_S = 300.0
"""An end this long ago counts half."""
ENOUGH = 20
"""Queries of a model that must have ended lately before their pace is taken for that of the rest."""
STALLED = 3.0
"""No end for so many typical gaps, and at least `STALLED_S`: the job stands still."""
STALLED_S = 60.0

STARTING_S = 10.0
"""A job this young may have been submitted together with the start of its worker, which has no row yet."""

Ground = Literal[
    "pace", "history", "ended", "validating", "finalizing", "cancelling", "paused", "starting", "no_worker", "stalled",
    "too_early",
]  # fmt: skip
"""What a forecast rests on; from `ended` on, why there is none."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds until the last query ends, at least and at most; both None when nobody can tell."""

    ground: Ground
    low_s: float | None = None
    high_s: float | None = None
    others: int = 0
    """Queries of other jobs counted in."""
    pace: float | None = None
    """Queries of this job per second of late."""
    quiet_s: float | None = None
    """Since its last end."""

    @property
    def likely_s(self) -> float | None:
        """The middle of the range."""
        return None if self.low_s is None or self.high_s is None else round((self.low_s + self.high_s) / 2, 1)


@dataclass(frozen=True, slots=True)
class Look:
    """What forecasts of some jobs rest on, at one moment."""

    loads: Sequence[JobLoad] = ()
    ends: Mapping[str, Sequence[End]] = field(default_factory=dict)
    """What ended lately by model, newest first."""
    serving: frozenset[str] = frozenset()
    """Models that somebody serves."""
    starting: frozenset[str] = frozenset()
    """Models that a worker loads."""
    paused: frozenset[str] = frozenset()
    """Models whose queue is paused."""
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Seconds, at least and at most, that what is left of a job takes alone, by earlier jobs; by its id."""


def forecasts(conn: Connection, rows: Iterable[Any], now: float, silent_s: float) -> dict[str, Forecast]:
    """Forecasts of job rows with their counters, by id; a worker is gone when it has been silent for `silent_s`."""
    asked = list(rows)
    seen = look(conn, asked, now, silent_s)
    return {row.id: forecast(row, seen, now) for row in asked}


def look(conn: Connection, rows: Sequence[Any], now: float, silent_s: float) -> Look:
    """Read what the forecasts need: nothing where no job runs."""
    running = [row for row in rows if row.status == "running" and row.waiting + row.running]
    if not running:
        return Look()
    ends = {model: jobs.ends_lately(conn, model, now) for model in {row.model for row in running}}
    history: dict[str, Sequence[float]] = {}
    for row in running:
        if not _measured(row, ends[row.model]):
            policy = Policy.from_mapping(row.policy)
            seconds = estimate(conn, row.model, policy, cost_of(policy, row.waiting + row.running))["seconds"]
            history.update({} if seconds is None else {row.id: seconds})
    states = fleet.states(conn, now, silent_s)
    return Look(
        loads=jobs.loads(conn),
        ends=ends,
        serving=frozenset(model for model, found in states.items() if found != {"starting"}),
        starting=frozenset(states),
        paused=frozenset(jobs.paused_models(conn)),
        history=history,
    )


def forecast(job: Any, seen: Look, now: float) -> Forecast:
    """The forecast of one job; pure."""
    settled = _settled(job, seen, now)
    if settled is not None:
        return Forecast(settled)
    ends = seen.ends.get(job.model, ())
    own = [end.at for end in ends if end.job_id == job.id]
    pace = pace_of(own, job.started_at, now)
    load = next((load for load in seen.loads if load.job_id == job.id), None)
    tokens, others = _ahead(load, seen.loads) if load is not None else (0.0, 0)
    quiet_s = now - max([*own[:1], job.started_at or job.created_at])
    told = {"others": others, "pace": pace, "quiet_s": quiet_s}
    if quiet_s > max(STALLED_S, STALLED / pace if pace else 10 * STALLED_S) and not others:
        return Forecast("stalled", **told)
    rate = _rate(ends, now)
    if load is not None and rate and _measured(job, ends):
        likely_s = (tokens_of(load) * (load.waiting + load.running) + tokens) / rate
        doubt = 1 / math.sqrt(len(ends))
        return Forecast("pace", likely_s * (1 - doubt), likely_s * (1 + doubt), **told)
    gone_s = now - (job.created_at if job.started_at is None else job.started_at)
    alone = seen.history.get(job.id)
    # A job that has taken longer than that without getting far is not like the earlier ones.
    if alone is None or gone_s > alone[1] or (tokens and not rate):
        return Forecast("too_early", **told)
    waits_s = tokens / rate if rate else 0.0
    return Forecast("history", alone[0] + waits_s, alone[1] + waits_s, **told)


def pace_of(ends: Sequence[float], started_at: float | None, now: float) -> float | None:
    """Ends per second, recent ones counting more; None before enough of them."""
    if len(ends) < ENOUGH or started_at is None:
        return None
    return _weighed([(at, 1.0) for at in ends], max(started_at, ends[-1]), now)


def _settled(job: Any, seen: Look, now: float) -> Ground | None:
    """Why the pace plays no part; None where it does."""
    if job.status in JOB_ENDED:
        return "ended"
    if job.status in ("validating", "finalizing", "cancelling"):
        return job.status  # type: ignore[no-any-return]
    if not job.waiting + job.running:
        return "finalizing"
    if job.paused_at is not None or job.model in seen.paused:
        return "paused"
    if job.model in seen.serving:
        return None
    return "starting" if job.model in seen.starting or now - job.created_at < STARTING_S else "no_worker"


def _measured(job: Any, ends: Sequence[End]) -> bool:
    """Whether enough has ended, some of it in this job, whose queries may cost more than others."""
    return len(ends) >= ENOUGH and job.done + job.degraded + job.failed > 0


def _ahead(load: JobLoad, loads: Iterable[JobLoad]) -> tuple[float, int]:
    """Tokens and queries of other jobs of the model that get their turn before the job is done."""
    rank, own = PRIORITIES[load.priority], tokens_of(load) * (load.waiting + load.running)
    tokens, queries = 0.0, 0.0
    for other in loads:
        left = other.waiting + other.running
        if other.model != load.model or other.job_id == load.job_id or not left:
            continue
        place, cost = PRIORITIES[other.priority], tokens_of(other)
        fair = own * other.weight / load.weight if place == rank else math.inf if place < rank else 0.0
        share = min(cost * left, max(fair, cost * other.running))
        tokens += share
        queries += share / cost
    return tokens, math.ceil(queries)


def _rate(ends: Sequence[End], now: float) -> float:
    """Tokens per second that a model gets done."""
    return _weighed([(end.at, end.tokens) for end in ends], ends[-1].at, now) if len(ends) >= ENOUGH else 0.0


def _weighed(amounts: Sequence[tuple[float, float]], since: float, now: float) -> float:
    """Amounts per second, halved in weight with every half-life."""
    seen_s = max(now - since, 1e-3)
    decay = math.log(2) / HALF_LIFE_S
    weight = sum(amount * math.exp(-decay * max(0.0, now - at)) for at, amount in amounts)
    return weight * decay / (1 - math.exp(-decay * seen_s))
