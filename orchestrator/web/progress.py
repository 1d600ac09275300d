"""How far a job is and when it may end, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from orchestrator.forecast import Forecast
from orchestrator.web import charts, numbers
from orchestrator.web.charts import Segment

STATES = ("done", "degraded", "failed", "expired", "cancelled", "running", "waiting")
"""Of queries, in the order of the progress bar."""
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


def progress(job: Any, eta: Forecast | None = None) -> Progress:
    """Where a job row with its counters stands; without a forecast nothing is said of its end."""
    counts = {state: int(getattr(job, state)) for state in STATES}
    ended = job.total - counts["running"] - counts["waiting"]
    return Progress(
        total=job.total,
        ended=ended,
        counts=counts,
        segments=charts.stacked(list(counts.items()), total=job.total),
        percent=numbers.percent(ended, job.total),
        pace=None if eta is None else eta.pace,
        forecast="" if eta is None else _leaving(job) if job.status == "cancelling" else told(eta),
    )


GROUNDS = {
    "ended": "",
    "validating": "the lines are checked",
    "finalizing": "the files come next",
    "cancelling": "nothing new starts",
    "paused": "paused: what runs goes on, nothing new starts",
    "starting": "no worker of this model is ready yet",
    "no_worker": "no worker serves this model",
    "too_early": "not enough has ended yet to tell",
}
"""What to say where there is no forecast."""


def told(eta: Forecast) -> str:
    """A forecast as a sentence part."""
    if eta.ground == "stalled":
        return f"nothing has ended for {numbers.seconds(eta.quiet_s)}"
    if eta.low_s is None or eta.high_s is None:
        return GROUNDS.get(eta.ground, GROUNDS["too_early"])
    likely_s = (eta.low_s + eta.high_s) / 2
    said = "less than a minute left" if likely_s < SOON_S else _between(eta.low_s, eta.high_s)
    if eta.ground == "history":
        said += ", to judge by earlier jobs"
    if eta.others:
        said += f", with {numbers.count(eta.others)} {'query' if eta.others == 1 else 'queries'} of other jobs"
    return said


def _between(low_s: float, high_s: float) -> str:
    low, high = _minutes(low_s), _minutes(high_s)
    return f"about {low} left" if low == high else f"about {low} to {high} left"


def _leaving(job: Any) -> str:
    """What a job that is being cancelled waits for."""
    if job.killed_at is not None or not job.running:
        return "what was open is given up"
    queries = "query that runs" if job.running == 1 else "queries that run"
    return f"nothing new starts; {job.running} {queries} may still end"


def _minutes(value: float) -> str:
    return numbers.seconds(max(60.0, math.ceil(value / 60) * 60)).removesuffix(" 00 s")
