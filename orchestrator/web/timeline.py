"""When each call of a query waited and ran: numbers for an SVG drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LABELS = 210
"""Pixels at the left for the names of the calls."""
WIDTH = 1200
RIGHT = 60
"""Pixels at the right for the numbers of neighbours."""
ROW = 18
TOP = 22
TICKS = 6


@dataclass(frozen=True, slots=True)
class Bar:
    """One call: waiting from `sent_x`, running from `start_x` to `end_x`."""

    key: str
    call_id: int
    kind: str
    status: str
    y: float
    sent_x: float
    start_x: float
    end_x: float
    waited_s: float
    ran_s: float | None
    """None while it runs."""
    worker: str | None
    neighbours: int
    """Calls of other queries that ran beside it on the same worker, at least."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """A drawing of `width` by `height` pixels; `ticks` are places with their second."""

    width: int
    height: int
    left: int
    bars: list[Bar]
    ticks: list[tuple[float, float]]
    span_s: float
    ran_s: float
    """Of all calls together; they overlap, so it may be more than the span."""


def draw(calls: Sequence[Any], neighbours: Mapping[int, int], now: float) -> Timeline | None:
    """The drawing of call rows; None when there are none."""
    if not calls:
        return None
    start = min(_sent(call) for call in calls)
    end = max(call.ended_at or now for call in calls)
    span = max(end - start, 0.001)
    scale = (WIDTH - LABELS - RIGHT) / span

    def x(at: float) -> float:
        return round(LABELS + max(0.0, at - start) * scale, 1)

    bars = []
    ordered = sorted(calls, key=lambda call: (_begun(call, now), call.id))
    for place, call in enumerate(ordered):
        begun, ended = _begun(call, now), call.ended_at or now
        bars.append(
            Bar(
                key=call.key,
                call_id=call.id,
                kind=call.kind,
                status=call.status,
                y=TOP + place * ROW,
                sent_x=x(_sent(call)),
                start_x=x(begun),
                end_x=max(x(ended), x(begun) + 1.5),
                waited_s=max(0.0, begun - _sent(call)),
                ran_s=None if call.ended_at is None or call.started_at is None else call.ended_at - call.started_at,
                worker=call.worker,
                neighbours=neighbours.get(call.id, 0),
            )
        )
    step = _step(span)
    ticks = [(x(start + step * each), step * each) for each in range(int(span / step) + 1)]
    return Timeline(WIDTH, TOP + ROW * len(bars) + 6, LABELS, bars, ticks, span, sum(bar.ran_s or 0.0 for bar in bars))


def _sent(call: Any) -> float:
    """When the call was first wanted; a message sent again later would hide the wait."""
    started = call.started_at if call.started_at is not None else call.sent_at
    return float(min(call.sent_at, started))


def _begun(call: Any, now: float) -> float:
    if call.started_at is not None:
        return float(call.started_at)
    return float(call.ended_at or now)


def _step(span: float) -> float:
    step = 0.001
    for factor in (2, 2.5, 2) * 12:
        if span / step <= TICKS:
            break
        step *= factor
    return step
