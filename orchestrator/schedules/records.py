"""From rows to what the pure parts take."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from orchestrator.schedules.due import Plan
from orchestrator.schedules.options import Options
from orchestrator.schedules.rule import Rule

CACHED = 16_384
"""Rules and options kept read: a schedule is met again at each of its slots."""


def plan_of(row: Any) -> Plan:
    """The plan of a schedule row. Raises BadInput when this version cannot read the row any more."""
    rule = _rule(orjson.dumps(row.rule))
    runs_left = None if rule.max_runs is None else max(0, rule.max_runs - row.runs)
    return Plan(rule=rule, options=_options(orjson.dumps(row.options)), paused_at=row.paused_at, runs_left=runs_left)


@lru_cache(maxsize=CACHED)
def _rule(text: bytes) -> Rule:
    return Rule.from_mapping(orjson.loads(text))


@lru_cache(maxsize=CACHED)
def _options(text: bytes) -> Options:
    return Options.from_mapping(orjson.loads(text))
