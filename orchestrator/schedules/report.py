"""What a run came to, against the run before: rows new, changed, removed and reused, answers that flipped, accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from storage import jobs, reuse
from storage.database import Database

Grade = Callable[[str, str, Sequence[str]], bool]
"""Takes an answer, a known answer and the choices; whether the answer is right."""

PAGE = 1000
FLIPS_SHOWN = 100
"""Flips listed in the report; all are counted, and the compare page shows them all."""


def same_words(answer: str, known: str, _choices: Sequence[str]) -> bool:
    """The plainest grade: the same text but for case and space."""
    return " ".join(answer.split()).casefold() == " ".join(known.split()).casefold()


def report_of(db: Database, job: Any, previous: Any, grade: Grade, drop: float) -> dict[str, Any]:
    """The report of an ended job. `previous` is the slot of the run before or None, `drop` the share of known
    answers whose loss counts as a drop.
    """
    earlier_job_id = previous.job_id if previous is not None else None
    with db.read() as conn:
        counts = reuse.compare(conn, job.id, earlier_job_id)
        earlier = jobs.get(conn, earlier_job_id) if earlier_job_id else None
        found = _flips(conn, job.id, earlier_job_id) if earlier_job_id else {"count": 0, "shown": []}
    accuracy = _accuracy(db, job.id, grade)
    before = (previous.report or {}).get("accuracy") if previous is not None else None
    return {
        **counts,
        "computed": counts["rows"] - counts["reused"],
        "failed": job.failed + job.expired + job.cancelled,
        "degraded": job.degraded,
        "tokens": job.kept_tokens + job.discarded_tokens + job.judged_tokens,
        "flips": found,
        "accuracy": accuracy,
        "accuracy_before": before,
        "accuracy_drop": bool(accuracy and before and before["share"] - accuracy["share"] > drop),
        "previous_slot_id": previous.id if previous is not None else None,
        "previous_job_id": earlier_job_id,
        "settings_changed": _settings_changed(job, earlier),
        "revisions": _about(job).get("revisions"),
    }


def _flips(conn: Any, job_id: str, earlier_job_id: str) -> dict[str, Any]:
    rows = reuse.flips(conn, job_id, earlier_job_id, limit=FLIPS_SHOWN)
    shown = [
        {
            "custom_id": row.custom_id,
            "query_id": row.query_id,
            "previous_query_id": row.previous_query_id,
            "answer": row.answer,
            "previous_answer": row.previous_answer,
        }
        for row in rows
    ]
    return {"count": reuse.count_flips(conn, job_id, earlier_job_id), "shown": shown}


def _accuracy(db: Database, job_id: str, grade: Grade) -> dict[str, Any] | None:
    known = correct = line = 0
    while True:
        with db.read() as conn:
            rows = reuse.answered_pages(conn, job_id, line, PAGE)
        if not rows:
            break
        line = rows[-1].line
        for row in rows:
            wanted = _known(row.body.get("answer"))
            known += bool(wanted)
            correct += row.answer is not None and any(
                grade(row.answer, answer, row.body.get("choices") or ()) for answer in wanted
            )
    return {"known": known, "correct": correct, "share": correct / known} if known else None


def _known(answer: Any) -> list[str]:
    if answer is None:
        return []
    return [str(item) for item in (answer if isinstance(answer, list) else [answer])]


def _settings_changed(job: Any, earlier: Any) -> list[str]:
    """What changed for all rows at once: policy, model or its revision."""
    if earlier is None:
        return []
    pairs = (
        ("policy", job.policy_digest, earlier.policy_digest),
        ("model", job.model, earlier.model),
        ("revision", _about(job).get("revisions"), _about(earlier).get("revisions")),
    )
    return [name for name, now, before in pairs if now != before]


def _about(job: Any) -> dict[str, Any]:
    return dict((job.options or {}).get("schedule") or {})
