"""How far a job is and when it may end, said only when something honest can be said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.web import charts, numbers
from orchestrator.web.charts import Segment
from storage.transitions import JOB_ENDED

STATES = ("done", "degraded", "failed", "expired", "cancelled", "running", "waiting")
"""Of queries, in the order of the progress bar."""
HALF_LIFE_S = 300.0
"""An end this long ago counts half for the pace."""
ENOUGH = 20
"""Queries that must have ended before their pace is taken for the pace of the rest."""
STALLED = 3.0
"""No end for so many typical gaps, and at least `STALLED_S`: the job stands still."""
STALLED_S = 60.0
SOON_S = 60.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a job stands."""

    total: int
    ended: int
    counts: dict[str, int]
    segments: list[Segment]
    percent: str
    """Rounded down: 100 % is said at the very end."""
    pace: float | None
    """Queries per second of late."""
    forecast: str
    """When it may end, as a sentence part; also when that cannot be said."""


def progress(
    job: Any, lately: Sequence[float], now: float, *, forsaken: bool, likely: Sequence[float] | None = None
) -> Progress:
    """Where a job row with its counters stands.

    `lately` is when its queries ended, newest first; `likely` the seconds, at least and at most, that earlier jobs say
    it takes in all.
    """
    counts = {state: int(getattr(job, state)) for state in STATES}
    ended = job.total - counts["running"] - counts["waiting"]
    pace = pace_of(lately, job.started_at, now)
    return Progress(
        total=job.total,
        ended=ended,
        counts=counts,
        segments=charts.stacked(list(counts.items()), total=job.total),
        percent=numbers.percent(ended, job.total),
        pace=pace,
        forecast=_settled(job, counts["running"] + counts["waiting"], forsaken=forsaken)
        or _forecast(job, counts["running"] + counts["waiting"], lately, pace, likely, now),
    )


def pace_of(lately: Sequence[float], started_at: float | None, now: float) -> float | None:
    """Ends per second, recent ones counting more; None before enough of them."""
    if len(lately) < ENOUGH or started_at is None:
        return None
    seen_s = max(now - max(started_at, lately[-1]), 1e-3)
    decay = math.log(2) / HALF_LIFE_S
    weight = sum(math.exp(-decay * max(0.0, now - at)) for at in lately)
    return weight * decay / (1 - math.exp(-decay * seen_s))


def _forecast(
    job: Any, left: int, lately: Sequence[float], pace: float | None, likely: Sequence[float] | None, now: float
) -> str:
    if job.status in JOB_ENDED:
        return ""
    quiet_s = now - (lately[0] if lately else job.started_at or job.created_at)
    if quiet_s > max(STALLED_S, STALLED / pace if pace else 10 * STALLED_S):
        return f"nothing has ended for {numbers.seconds(quiet_s)}"
    if pace is None:
        return _by_history(likely, now - (job.created_at if job.started_at is None else job.started_at))
    likely_s = left / pace
    if likely_s < SOON_S:
        return "less than a minute left"
    spread = 1 / math.sqrt(len(lately))
    return _between(likely_s * (1 - spread), likely_s * (1 + spread))


def _by_history(likely: Sequence[float] | None, gone_s: float) -> str:
    """Before enough has ended: what earlier jobs say, marked as that."""
    if likely is None:
        return "not enough has ended yet to tell"
    low, high = likely[0] - gone_s, likely[1] - gone_s
    if high < SOON_S:
        return "less than a minute left, to judge by earlier jobs" if high > 0 else "not enough has ended yet to tell"
    return f"{_between(low, high)}, to judge by earlier jobs"


def _between(low_s: float, high_s: float) -> str:
    low, high = _minutes(low_s), _minutes(high_s)
    return f"about {low} left" if low == high else f"about {low} to {high} left"


def _settled(job: Any, left: int, *, forsaken: bool) -> str | None:
    """What to say where the pace plays no part; None where it does, and of a job that has ended."""
    if job.status in JOB_ENDED:
        return None
    if job.status == "cancelling":
        return _leaving(job)
    if job.status != "running":
        return "the lines are checked" if job.status == "validating" else "the files are written"
    if job.paused_at is not None:
        return "paused: what runs goes on, nothing new starts"
    if not left:
        return "the files come next"
    return "no worker serves this model" if forsaken else None


def _leaving(job: Any) -> str:
    """What a job that is being cancelled waits for."""
    if job.killed_at is not None or not job.running:
        return "what was open is given up"
    queries = "query that runs" if job.running == 1 else "queries that run"
    return f"nothing new starts; {job.running} {queries} may still end"


def _minutes(value: float) -> str:
    return numbers.seconds(max(60.0, math.ceil(value / 60) * 60)).removesuffix(" 00 s")
