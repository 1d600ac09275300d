"""How the judge of a job did: how often it could not be read, changed its mind with the order, or hardly decided."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from orchestrator.traces import read_part
from orchestrator.web.jobs import job_of
from orchestrator.web.pages import Ask
from storage import questions

SAMPLE = 200
"""Queries looked at, evenly over the lines: exact enough for a share, and bounded for a job of any size."""
MOSTLY, OFTEN = 0.5, 0.2
"""Shares of verdicts that changed with the order, or of replies that could not be read, which are called so."""
BINS = 10
"""Of the histogram of margins, 0 to 1."""
ORDER = ("summary", "caption", "reasoning", "conclusion", "whole")
MAX_PARTS = 4
"""Parts of folded traces read at most; each holds some hundred queries."""


@dataclass(slots=True)
class Health:
    """Counts over the comparisons of one stage."""

    comparisons: int = 0
    failed: int = 0
    """Engine errors."""
    showings: int = 0
    unread: int = 0
    read: int = 0
    """Showings with a choice."""
    first: int = 0
    """Showings that chose what was shown first."""
    swapped: int = 0
    """Comparisons with both orders read."""
    disagreed: int = 0
    ties: int = 0
    margins: list[float] = field(default_factory=list)
    """How far apart the two were, 0 to 1, over both orders."""

    @property
    def mean_margin(self) -> float | None:
        return sum(self.margins) / len(self.margins) if self.margins else None

    @property
    def bins(self) -> list[int]:
        """Histogram of the margins."""
        counts = [0] * BINS
        for margin in self.margins:
            counts[min(BINS - 1, int(margin * BINS))] += 1
        return counts

    @property
    def finding(self) -> str:
        """What the numbers come to, in a sentence."""
        if not self.read:
            return "No reply of the judge could be read."
        if self.swapped and self.disagreed >= MOSTLY * self.swapped:
            return "Mostly the place decided, not the text: swapped, the same pair got the other verdict."
        if self.swapped and self.disagreed >= OFTEN * self.swapped:
            return (
                "Many verdicts changed with the order in which the two were shown; close calls are decided by chance."
            )
        if self.unread >= OFTEN * self.showings:
            return "Many replies could not be read; their matches were decided by the fallback."
        if not self.swapped:
            return "Each pair was shown in one order, so a preference for a place cannot be told from a choice."
        return "Most verdicts held when the order was swapped."

    def add(self, status: str, showings: Sequence[Mapping[str, Any]]) -> None:
        """Count one comparison."""
        if status != "done":
            self.failed += 1
            return
        self.comparisons += 1
        self.showings += len(showings)
        good = [showing for showing in showings if showing["parse"] == "ok"]
        self.unread += len(showings) - len(good)
        chosen = [showing for showing in good if showing["choice"] is not None]
        self.ties += len(good) - len(chosen)
        self.read += len(chosen)
        self.first += sum(showing["choice"] == showing["order"][0] for showing in chosen)
        if len(good) == 2:
            self.swapped += 1
            self.disagreed += good[0]["choice"] != good[1]["choice"]
        gaps = [_gap(showing) for showing in good if len(showing["probabilities"]) == 2]
        if gaps and len(gaps) == len(good):
            self.margins.append(abs(sum(gaps) / len(gaps)))


@dataclass(slots=True)
class Checks:
    """Counts over the pre-checks that published mode makes of a line of thought alone."""

    done: int = 0
    failed: int = 0
    unread: int = 0
    incorrect: int = 0

    def add(self, status: str, showings: Sequence[Mapping[str, Any]]) -> None:
        """Count one pre-check."""
        if status != "done":
            self.failed += 1
            return
        self.done += 1
        self.unread += any(showing["parse"] != "ok" for showing in showings)
        self.incorrect += any(showing["parse"] == "ok" and showing["choice"] is None for showing in showings)


def health(ask: Ask) -> Response:
    """The page, from a sample of the job's queries."""
    with ask.use.db.read() as conn:
        job = job_of(ask, conn)
        rows = questions.at_lines(conn, job.id, sample_lines(job.total))
        outcomes = questions.judge_outcomes(conn, [row.id for row in rows])
    have = {row.query_id for row in outcomes}
    judged = [*_from_rows(outcomes), *_from_parts(ask, [row for row in rows if row.id not in have])]
    stages: dict[str, Health] = defaultdict(Health)
    everything, checks = Health(), Checks()
    for kind, stage, status, showings in judged:
        counted: Sequence[Health | Checks] = (checks,) if kind == "check" else (stages[stage], everything)
        for each in counted:
            each.add(status, showings)
    ordered = [(name, stages[name]) for name in ORDER if name in stages]
    return ask.page("judging.html", job=job, stages=ordered, all=everything, checks=checks, looked=len(rows))


def sample_lines(total: int) -> list[int]:
    """Up to `SAMPLE` lines, evenly spread."""
    if total <= SAMPLE:
        return list(range(1, total + 1))
    return [1 + round(step * (total - 1) / (SAMPLE - 1)) for step in range(SAMPLE)]


Judged = tuple[str, str, str, Sequence[Mapping[str, Any]]]
"""Kind, stage, status and showings of a call of the judge."""


def _from_rows(rows: Iterable[Any]) -> list[Judged]:
    return [
        (row.kind, row.stage, row.status, row.outcome["verdict"]["showings"] if row.outcome else ())
        for row in rows
        if row.status in ("done", "failed")
    ]


def _from_parts(ask: Ask, rows: Sequence[Any]) -> list[Judged]:
    """The same from traces whose calls were folded."""
    wanted: dict[str, set[int]] = {}
    for row in rows:
        if row.trace_key is not None:
            wanted.setdefault(row.trace_key, set()).add(row.id)
    found: list[Judged] = []
    for key in list(wanted)[:MAX_PARTS]:
        for document in read_part(ask.use.objects, key):
            if document["id"] in wanted[key]:
                found += _of_trace(document["trace"])
    return found


def _of_trace(trace: Mapping[str, Any]) -> list[Judged]:
    return [
        (call["kind"], stage["stage"], call["status"], call["showings"])
        for stage in trace["stages"]
        for verdict in stage["verdicts"]
        for call in verdict["calls"]
    ]


def _gap(showing: Mapping[str, Any]) -> float:
    """P(lower index) - P(higher index), whatever the order shown."""
    first, second = showing["probabilities"]
    return float(first - second if showing["order"][0] < showing["order"][1] else second - first)
