"""From rows to what the pure parts take."""

from __future__ import annotations

from typing import Any

from orchestrator.schedules.due import Plan
from orchestrator.schedules.options import Options
from orchestrator.schedules.rule import Rule


def plan_of(row: Any) -> Plan:
    """The plan of a schedule row. Raises BadInput when this version cannot read the row any more."""
    rule = Rule.from_mapping(row.rule)
    runs_left = None if rule.max_runs is None else max(0, rule.max_runs - row.runs)
    options = Options.from_mapping(row.options)
    return Plan(rule=rule, options=options, paused_at=row.paused_at, runs_left=runs_left)
