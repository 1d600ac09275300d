"""Answers that flipped between a run and the one before: from the rows of both, or from the report without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from storage import jobs, reuse


@dataclass(frozen=True, slots=True)
class Flips:
    """A page of flips, one more than asked for when there are more.

    Each has `line`, `custom_id`, `question`, `known_answer`, both query ids and both answers.
    """

    rows: list[dict[str, Any]]
    forgotten: bool
    """Whether the rows of one of the runs are kept no longer: only what the report lists is told."""


def flips_of(conn: Connection, slot: Any, *, after_line: int, limit: int) -> Flips:
    """Rows that the run of a slot and the one before answered differently, in line order after a line."""
    report = slot.report or {}
    earlier_job_id = report.get("previous_job_id")
    if slot.job_id is None or earlier_job_id is None:
        return Flips([], forgotten=False)
    earlier = jobs.get(conn, earlier_job_id)
    if slot.removed_at is None and earlier is not None and earlier.rows_kept is None:
        rows = reuse.flips(conn, slot.job_id, earlier_job_id, after_line=after_line, limit=limit + 1)
        return Flips([_flip(row) for row in rows], forgotten=False)
    blank = {"line": None, "question": None, "known_answer": None}
    shown = [] if after_line else report.get("flips", {}).get("shown", [])
    return Flips([{**blank, **flip} for flip in shown[:limit]], forgotten=True)


def _flip(row: Any) -> dict[str, Any]:
    names = ("line", "custom_id", "query_id", "previous_query_id", "answer", "previous_answer")
    told = {name: getattr(row, name) for name in names}
    return {**told, "question": row.body.get("question"), "known_answer": row.body.get("answer")}
