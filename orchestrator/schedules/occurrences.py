"""The instants at which slots of a rule are due. Pure: the only clock is the argument.

Days on which clocks change:

- An interval counts elapsed seconds and knows no days.
- A cron rule whose hour field is `*` runs in every hour that passes: the skipped hour has no slots, the repeated
  hour has its slots twice.
- Any other rule follows the clock on the wall: a slot that is skipped is due at the first instant after the gap
  (once, if several fall into it), a slot that is shown twice is due at the first.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from cronsim import CronSim

from orchestrator.schedules.rule import Rule
from orchestrator.schedules.zones import instant_of, wall_time, zone_named

HORIZON_S = 5 * 366 * 86400.0
"""How far ahead a slot is searched for."""


def occurrences(rule: Rule, since: float) -> Iterator[float]:
    """Slots due after `since` in order, up to five years ahead and before the rule's end."""
    after = since if rule.start is None else max(since, math.nextafter(rule.start, -math.inf))
    last = min(after + HORIZON_S, math.inf if rule.end is None else math.nextafter(rule.end, -math.inf))
    if rule.kind == "interval":
        found: Iterator[float] = _steps(rule, after)
    else:
        found = heapq.merge(*(_cron_times(expression, rule.zone, after) for expression in rule.expressions()))
    previous = after
    for due in found:
        if due > last:
            return
        if due > previous:
            yield due
            previous = due


def following(rule: Rule, since: float, count: int) -> list[float]:
    """The next `count` slots after `since`, fewer when there are no more."""
    return list(islice(occurrences(rule, since), count))


def begins_at(rule: Rule, key: str, due_at: float) -> float:
    """When the run of a slot begins: its time and the slot's own part of the jitter. `key` names the schedule."""
    if not rule.jitter_s:
        return due_at
    draw = hashlib.blake2b(f"{key}|{due_at:.3f}".encode(), digest_size=7).digest()
    return due_at + rule.jitter_s * int.from_bytes(draw, "big") / 2**56


def _steps(rule: Rule, after: float) -> Iterator[float]:
    anchor = rule.start or 0.0
    number = max(0, math.floor((after - anchor) / rule.every_s))
    while True:
        due = anchor + number * rule.every_s
        if due > after:
            yield due
        number += 1


def _cron_times(expression: str, zone_name: str, after: float) -> Iterator[float]:
    zone = zone_named(zone_name)
    if expression.split()[1] == "*":
        elapsed = CronSim(expression, datetime.fromtimestamp(math.floor(after), zone))
        return (moment.timestamp() for moment in elapsed)
    walls = CronSim(expression, wall_time(after, zone))
    return (instant_of(wall, zone) for wall in walls)
