"""The JSON documents of the API: what a job, a query and a worker look like from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.forecast import Forecast

QUERY_STATES = ("waiting", "running", "done", "degraded", "failed", "cancelled", "expired")
ENDED_JOBS = ("completed", "failed", "cancelled", "expired")

LATE_BEATS = 3
LOST_BEATS = 12
"""Missed heartbeats after which a worker is shown as late, and as lost."""


def page(data: Iterable[Mapping[str, Any]], *, limit: int, cursor: str = "id") -> dict[str, Any]:
    """A part of a list. `data` holds up to `limit + 1` entries: one more than fits tells that there is more.

    `next` is the value to send as `after` for the next part; None at the end.
    """
    entries = list(data)
    shown = entries[:limit]
    has_more = len(entries) > limit
    following = str(shown[-1][cursor]) if has_more else None
    return {"object": "list", "data": shown, "has_more": has_more, "next": following}


def job_document(row: Any, eta: Forecast) -> dict[str, Any]:
    """A job row joined with its counters, and when it may end."""
    ended_queries = row.done + row.degraded + row.failed + row.cancelled + row.expired
    return {
        "id": row.id,
        "object": "job",
        "name": row.name,
        "status": row.status,
        "status_reason": row.status_reason,
        "paused": row.paused_at is not None,
        "model": row.model,
        "policy": row.policy,
        "policy_digest": row.policy_digest,
        "priority": row.priority,
        "on_bad_line": row.on_bad_line,
        "rows_kept": row.rows_kept,
        "counts": {"total": row.total, **{state: getattr(row, state) for state in QUERY_STATES}},
        "usage": _usage(row),
        "progress": _progress(ended_queries, row),
        "eta_s": eta.likely_s,
        "eta_ground": eta.ground,
        "errors": row.errors or [],
        "error_count": row.error_count,
        "metadata": row.attributes or {},
        "input_file_id": row.input_file_id,
        "output_file_id": row.output_file_id,
        "error_file_id": row.error_file_id,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "finalizing_at": row.finalizing_at,
        "cancelling_at": row.cancelling_at,
        "killed_at": row.killed_at,
        "paused_at": row.paused_at,
        "expires_at": row.expires_at,
        "ended_at": row.ended_at,
    }


def query_document(row: Any) -> dict[str, Any]:
    """A query row; the hidden stages are in its trace."""
    body = row.body
    return {
        "id": row.id,
        "object": "query",
        "job_id": row.job_id,
        "line": row.line,
        "custom_id": row.custom_id,
        "status": row.status,
        "stage": row.stage,
        "question": body.get("question"),
        "choices": body.get("choices") or [],
        "images": body.get("images") or [],
        "policy": body.get("policy") or {},
        "answer": row.answer,
        "format_ok": row.format_ok,
        "degraded_reason": row.degraded_reason,
        "error": row.error,
        "usage": row.usage,
        "retries": row.retries,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
    }


def worker_document(row: Any, now: float, heartbeat_s: float) -> dict[str, Any]:
    """A worker's heartbeat row. `state` also tells late and lost, by the age of the last heartbeat."""
    return {
        "id": row.id,
        "object": "worker",
        "state": worker_state(row, now, heartbeat_s),
        "wanted": row.wanted,
        "model": row.model,
        "engine": row.engine,
        "slots": row.slots,
        "in_hand": row.in_hand or [],
        "stats": row.stats or {},
        "version": row.version,
        "started_at": row.started_at,
        "beat_at": row.beat_at,
        "beat_age_s": max(0.0, now - row.beat_at),
        "stopped_at": row.stopped_at,
    }


def worker_state(row: Any, now: float, heartbeat_s: float) -> str:
    """The state that a worker gave itself, unless it has not been heard of: then `late`, then `lost`."""
    silent_beats = (now - row.beat_at) / heartbeat_s
    if row.state == "stopped" or silent_beats <= LATE_BEATS:
        return str(row.state)
    return "late" if silent_beats <= LOST_BEATS else "lost"


def file_document(row: Any) -> dict[str, Any]:
    """A file row."""
    return {
        "id": row.id,
        "object": "file",
        "filename": row.filename,
        "bytes": row.bytes,
        "sha256": row.sha256,
        "purpose": row.purpose,
        "status": row.status,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
    }


def _usage(row: Any) -> dict[str, Any]:
    return {
        "prompt_tokens": row.prompt_tokens,
        "cached_tokens": row.cached_tokens,
        "kept": row.kept_tokens,
        "discarded": row.discarded_tokens,
        "judged": row.judged_tokens,
        "rerun": row.rerun_tokens,
        "candidates": row.candidates,
        "verdicts": row.verdicts,
        "wasted_calls": row.wasted_calls,
        "vision_calls": row.vision_calls,
        "engine_seconds": row.engine_seconds,
    }


def _progress(ended: int, row: Any) -> float | None:
    """Part of the queries that ended, rounded down to a thousandth; None while their number is not known."""
    if row.status == "validating" or row.total == 0:
        return None
    return float(ended * 1000 // row.total) / 1000
