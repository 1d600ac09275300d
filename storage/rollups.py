"""Sums by minute and hour: written from the queries that ended, read by the charts, so that no page counts rows.

Writing is repeatable: a bucket is computed whole and replaced, so that a restart, a late commit or a second
orchestrator changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, and_, case, cast, func, select

from storage.portable import insert_into
from storage.tables import Job, Query, Rollup

_ROLLUPS = Rollup.__table__
_QUERIES = Query.__table__
_JOBS = Job.__table__

MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86400
KEPT_S = {MINUTE_S: 2 * DAY_S, HOUR_S: 400 * DAY_S}
"""Buckets older than this are removed."""
STEPS = 28
"""Powers of two of a millisecond that histograms tell apart: the last one is a day and a half."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What happened in one or more buckets. Histograms: counts by power of two of milliseconds."""

    done: int = 0
    failed: int = 0
    calls: int = 0
    """Candidates drawn and verdicts given."""
    tokens: int = 0
    """Generated."""
    waiting_ms: tuple[int, ...] = ()
    """First starts alone: a retry did not wait, somebody decided on it."""
    running_ms: tuple[int, ...] = ()

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.done + other.done,
            self.failed + other.failed,
            self.calls + other.calls,
            self.tokens + other.tokens,
            _added(self.waiting_ms, other.waiting_ms),
            _added(self.running_ms, other.running_ms),
        )

    @property
    def ended(self) -> int:
        return self.done + self.failed

    def waiting_s(self, share: float) -> float | None:
        """The waiting time that `share` of the queries stayed below, in seconds; None without any."""
        return quantile(self.waiting_ms, share)

    def running_s(self, share: float) -> float | None:
        """The running time that `share` of the queries stayed below, in seconds; None without any."""
        return quantile(self.running_ms, share)


@dataclass(frozen=True, slots=True)
class Series:
    """Buckets of the last hour by minute, and of the last day and week by hour, oldest first, gaps filled."""

    hour: list[Sums] = field(default_factory=list)
    day: list[Sums] = field(default_factory=list)
    week: list[Sums] = field(default_factory=list)
    models: Mapping[str, Sums] = field(default_factory=dict)
    """The last hour by model."""

    def total(self, name: str) -> Sums:
        """The sum of `hour`, `day` or `week`."""
        return sum(getattr(self, name), Sums())


def bucket(at: float, width_s: int) -> float:
    """Start of the bucket that holds `at`."""
    return float(at // width_s * width_s)


def place(milliseconds: float) -> int:
    """The histogram bucket of a duration: 0 below one millisecond, then one for each power of two."""
    return min(STEPS - 1, max(0, int(milliseconds)).bit_length())


def quantile(histogram: Sequence[int], share: float) -> float | None:
    """The value that `share` of a histogram lies below, in seconds, straight within its bucket."""
    wanted, below = sum(histogram) * share, 0
    for step, amount in enumerate(histogram):
        if amount and below + amount >= wanted:
            low, high = (0.0, 1.0) if step == 0 else (2.0 ** (step - 1), 2.0**step)
            return (low + (high - low) * (wanted - below) / amount) / 1000
        below += amount
    return None


def write_minutes(conn: Connection, start: float, end: float) -> None:
    """Compute the minutes from `start` up to `end` again from the queries that ended in them."""
    found: dict[tuple[float, str], dict[str, Any]] = {}
    for row in conn.execute(_ended_between(start, end)):
        sums = found.setdefault((float(row.minute) * MINUTE_S, row.model), _blank())
        sums["done" if row.well else "failed"] += row.queries
        sums["calls"] += int(row.calls or 0)
        sums["tokens"] += int(row.tokens or 0)
        if row.first and row.waited is not None:
            sums["waiting_ms"][row.waited] += row.queries
        if row.ran is not None:
            sums["running_ms"][row.ran] += row.queries
    _replace(conn, MINUTE_S, found)


def write_hours(conn: Connection, start: float, end: float) -> None:
    """Add up the hours from `start` up to `end` again from their minutes."""
    where = (_ROLLUPS.c.width_s == MINUTE_S, _ROLLUPS.c.bucket >= bucket(start, HOUR_S), _ROLLUPS.c.bucket < end)
    sums: dict[tuple[float, str], Sums] = {}
    for row in conn.execute(select(_ROLLUPS).where(*where)):
        key = (bucket(row.bucket, HOUR_S), row.model)
        sums[key] = sums.get(key, Sums()) + _sums(row)
    found = {
        key: {name: getattr(value, name) for name in ("done", "failed", "calls", "tokens")}
        | {"waiting_ms": list(value.waiting_ms), "running_ms": list(value.running_ms)}
        for key, value in sums.items()
    }
    _replace(conn, HOUR_S, found)


def forget(conn: Connection, now: float) -> None:
    """Remove buckets that nobody looks at any more."""
    for width_s, kept_s in KEPT_S.items():
        conn.execute(_ROLLUPS.delete().where(_ROLLUPS.c.width_s == width_s, _ROLLUPS.c.bucket < now - kept_s))


def newest(conn: Connection) -> float | None:
    """Start of the newest minute written; None before the first."""
    found = conn.execute(select(func.max(_ROLLUPS.c.bucket)).where(_ROLLUPS.c.width_s == MINUTE_S)).scalar_one()
    return None if found is None else float(found)


def first_end(conn: Connection) -> float | None:
    """When the first query of all ended."""
    found = conn.execute(select(func.min(_QUERIES.c.ended_at)).where(_QUERIES.c.ended_at.is_not(None))).scalar_one()
    return None if found is None else float(found)


def read(conn: Connection, now: float, model: str | None = None) -> Series:
    """The series behind the charts, of one model or of all, in one statement."""
    minutes = and_(_ROLLUPS.c.width_s == MINUTE_S, _ROLLUPS.c.bucket >= bucket(now, MINUTE_S) - 59 * MINUTE_S)
    hours = and_(_ROLLUPS.c.width_s == HOUR_S, _ROLLUPS.c.bucket >= bucket(now, HOUR_S) - 167 * HOUR_S)
    statement = select(_ROLLUPS).where(minutes | hours)
    if model is not None:
        statement = statement.where(_ROLLUPS.c.model == model)
    sums: dict[tuple[int, float], Sums] = {}
    models: dict[str, Sums] = {}
    for row in conn.execute(statement):
        key, found = (row.width_s, row.bucket), _sums(row)
        sums[key] = sums.get(key, Sums()) + found
        if row.width_s == MINUTE_S:
            models[row.model] = models.get(row.model, Sums()) + found
    week = _filled(sums, HOUR_S, bucket(now, HOUR_S), 168)
    return Series(hour=_filled(sums, MINUTE_S, bucket(now, MINUTE_S), 60), day=week[-24:], week=week, models=models)


def _filled(sums: Mapping[tuple[int, float], Sums], width_s: int, last: float, count: int) -> list[Sums]:
    starts = (last - width_s * back for back in range(count - 1, -1, -1))
    return [sums.get((width_s, start), Sums()) for start in starts]


def _ended_between(start: float, end: float) -> Any:
    """Queries that ended, counted by minute, model, fate and histogram buckets; the database does the counting."""
    usage = _QUERIES.c.usage
    minute = cast(func.floor(_QUERIES.c.ended_at / MINUTE_S), Integer).label("minute")
    well = _QUERIES.c.status.in_(("done", "degraded")).label("well")
    first = (_QUERIES.c.retries == 0).label("first")
    waited = _step(_QUERIES.c.started_at - _QUERIES.c.created_at).label("waited")
    ran = _step(_QUERIES.c.ended_at - _QUERIES.c.started_at).label("ran")
    groups = (minute, _JOBS.c.model, well, first, waited, ran)
    calls = usage["candidates"].as_integer() + usage["verdicts"].as_integer()
    return (
        select(
            *groups,
            func.count().label("queries"),
            func.sum(calls).label("calls"),
            func.sum(usage["generated_tokens"].as_integer()).label("tokens"),
        )
        .join(_JOBS, _JOBS.c.id == _QUERIES.c.job_id)
        .where(_QUERIES.c.ended_at >= start, _QUERIES.c.ended_at < end)
        .group_by(*groups)
    )


def _step(seconds: ColumnElement[float]) -> ColumnElement[int | None]:
    """`place` in SQL: both databases know comparisons, not both know logarithms."""
    rungs = [(seconds < 2.0**step / 1000, step) for step in range(STEPS - 1)]
    return case((seconds.is_(None), None), *rungs, else_=STEPS - 1)


def _replace(conn: Connection, width_s: int, found: Mapping[tuple[float, str], Mapping[str, Any]]) -> None:
    if not found:
        return
    statement = insert_into(_ROLLUPS, conn)
    columns = ("done", "failed", "calls", "tokens", "waiting_ms", "running_ms")
    keys = [_ROLLUPS.c.bucket, _ROLLUPS.c.width_s, _ROLLUPS.c.model]
    rows = [
        {"bucket": start, "width_s": width_s, "model": model, **sums} for (start, model), sums in sorted(found.items())
    ]
    changed = {name: statement.excluded[name] for name in columns}
    conn.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)


def _sums(row: Any) -> Sums:
    histograms = (tuple(row.waiting_ms or ()), tuple(row.running_ms or ()))
    return Sums(row.done, row.failed, row.calls, row.tokens, *histograms)


def _blank() -> dict[str, Any]:
    counts: dict[str, Any] = dict.fromkeys(("done", "failed", "calls", "tokens"), 0)
    return counts | {"waiting_ms": [0] * STEPS, "running_ms": [0] * STEPS}


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return (*map(add, longer, shorter), *longer[len(shorter) :])
