"""The JSON documents of datasets, schedules and slots: the same from the API, the command line and the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.schedules.backfill import READS, BackfillPlan
from orchestrator.schedules.define import without_secret
from orchestrator.schedules.due import Due
from orchestrator.schedules.occurrences import following
from orchestrator.schedules.rule import Rule
from orchestrator.schedules.words import sentence, shown

NEXT_SHOWN = 5
LATE_S = 30.0
"""A slot that nobody decided for this long is shown as overdue."""


def dataset_document(row: Any, used_by: Sequence[str] | None = None) -> dict[str, Any]:
    """A dataset row."""
    found = {
        "id": row.id,
        "object": "dataset",
        "name": row.name,
        "source": row.source,
        "columns": row.mapping.get("columns") or {},
        "question": row.mapping.get("question"),
        "policy": row.policy,
        "model": row.model,
        "identity": row.identity,
        "managed_by": row.managed_by,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }
    return found if used_by is None else {**found, "used_by": list(used_by)}


def schedule_document(row: Any, dataset: str, last: Sequence[Any], now: float) -> dict[str, Any]:
    """A schedule row. `dataset` is a name, `last` its newest slots, oldest first."""
    return {
        "id": row.id,
        "object": "schedule",
        "name": row.name,
        "dataset": dataset,
        "rule": row.rule,
        "sentence": sentence_of(row.rule),
        "zone": row.rule.get("zone", "UTC"),
        "options": without_secret(row.options),
        "managed_by": row.managed_by,
        "owner": row.owner,
        "paused": row.paused_at is not None,
        "paused_at": row.paused_at,
        "paused_by": row.paused_by,
        "paused_reason": row.paused_reason,
        "state": state_of(row, now),
        "next_at": row.next_at,
        "runs": row.runs,
        "failures": row.failures,
        "version": row.version,
        "last": [brief_slot(slot) for slot in last],
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def state_of(row: Any, now: float) -> str:
    """paused, ended, overdue or active."""
    if row.paused_at is not None:
        return "paused"
    if row.next_at is None:
        return "ended"
    return "overdue" if now - row.next_at > LATE_S else "active"


def sentence_of(rule: Mapping[str, Any]) -> str:
    """A stored rule as a sentence."""
    return sentence(Rule.from_mapping(rule))


def rule_document(rule: Rule, now: float) -> dict[str, Any]:
    """What a rule means: a sentence and its next times, before anything is saved."""
    times = following(rule, now, NEXT_SHOWN)
    return {
        "object": "rule",
        "rule": rule.to_mapping(),
        "sentence": sentence(rule),
        "next": [{"at": at, "local": shown(at, rule.zone)} for at in times],
    }


def brief_slot(row: Any) -> dict[str, Any]:
    """A slot as a tick in a list."""
    names = ("id", "due_at", "origin", "status", "reason", "note", "job_id", "ended_at")
    return {name: getattr(row, name) for name in names}


def slot_document(row: Any) -> dict[str, Any]:
    """A slot row with its report."""
    rest = ("attempt", "version", "overlap", "priority", "asked_by", "begins_at", "fired_at", "output_prefix", "report")
    return {
        "object": "slot",
        **brief_slot(row),
        **{name: getattr(row, name) for name in rest},
        "removed_at": row.removed_at,
        "created_at": row.created_at,
    }


def decision_document(slots: Sequence[Due], zone: str) -> list[dict[str, Any]]:
    """What a tick would do."""
    return [
        {
            "due_at": slot.due_at,
            "local": shown(slot.due_at, zone),
            "action": slot.action,
            "reason": slot.reason,
            "note": slot.note,
        }
        for slot in slots
    ]


def backfill_document(plan: BackfillPlan, zone: str) -> dict[str, Any]:
    """What a backfill runs."""
    return {
        "object": "backfill",
        "count": len(plan.slots),
        "rows_each": plan.rows_each,
        "cost_at_most": plan.cost,
        "needs_confirmation": plan.needs_confirmation,
        "reads": READS,
        "slots": [
            {"due_at": slot.due_at, "local": shown(slot.due_at, zone), "was": slot.was, "attempt": slot.attempt}
            for slot in plan.slots
        ],
    }
