"""The objects of the wire: file, batch and model as clients of the OpenAI API read them (section 9.2 and 9.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from orchestrator.api.documents import job_document
from orchestrator.forecast import Forecast
from orchestrator.intake.chat import CHAT_ENDPOINT

STATUS = {"running": "in_progress"}
"""Batch status by job status, where the words differ."""

CODES = {"invalid_utf8": "invalid_json_line"}
"""Code of a line error by our own, where the words differ (section 9.8)."""


class Extras(NamedTuple):
    """What the extra fields of a batch need beside its row."""

    stages: Mapping[str, int]
    """Running queries by stage."""
    eta: Forecast


def file_object(row: Any) -> dict[str, Any]:
    """A file row as `FileObject`."""
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": int(row.created_at),
        "expires_at": None if row.expires_at is None else int(row.expires_at),
        "filename": row.filename,
        "purpose": row.purpose,
        "status": row.status,
        "status_details": None,
    }


def batch_object(row: Any, *, extras: Extras | None = None) -> dict[str, Any]:
    """A job row with its counters as `Batch`, with the extra fields where they are asked for."""
    status = status_of(row)
    completed = row.done + row.degraded
    shown = {
        "id": row.id,
        "object": "batch",
        "endpoint": CHAT_ENDPOINT,
        "model": row.model,
        "input_file_id": row.input_file_id,
        "completion_window": (row.options or {}).get("completion_window", "24h"),
        "status": status,
        "errors": _errors(row) if status == "failed" else None,
        "output_file_id": row.output_file_id,
        "error_file_id": row.error_file_id,
        **_times(row, status),
        "request_counts": {
            # While lines are read in, their number is not known; afterwards it does not change.
            "total": 0 if status in ("validating", "failed") else row.total,
            "completed": 0 if status in ("validating", "failed") else completed,
            "failed": 0 if status in ("validating", "failed") else row.failed + row.expired + row.cancelled,
        },
        "usage": _usage(row),
        "metadata": row.attributes,
    }
    return shown if extras is None else {**shown, **_extras(row, extras)}


def status_of(row: Any) -> str:
    """The word of the wire for where a job stands."""
    if row.status == "finalizing" and row.cancelling_at is not None:
        return "cancelling"  # the wire knows nothing between cancelling and cancelled
    return STATUS.get(row.status, str(row.status))


def list_object(data: Iterable[Mapping[str, Any]], *, limit: int) -> dict[str, Any]:
    """A page of a list; `data` holds one entry more than `limit` when there is more."""
    entries = list(data)
    shown = entries[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(entries) > limit,
    }


def _times(row: Any, status: str) -> dict[str, int | None]:
    """Whole seconds since the epoch; null for states that were not entered."""
    ended = status if status in ("completed", "failed", "expired", "cancelled") else None
    at = {
        "created_at": row.created_at,
        "in_progress_at": row.started_at,
        "finalizing_at": None if row.cancelling_at is not None else row.finalizing_at,
        "cancelling_at": row.cancelling_at,
        "expires_at": row.created_at + (row.completion_window_s or 86400.0),
        **{f"{name}_at": row.ended_at if name == ended else None for name in _ENDS},
    }
    return {name: None if value is None else int(value) for name, value in at.items()}


_ENDS = ("completed", "failed", "expired", "cancelled")


def _usage(row: Any) -> dict[str, Any]:
    """Responses-style names, as batches have them even for chat completions."""
    generated = row.kept_tokens + row.discarded_tokens + row.judged_tokens
    return {
        "input_tokens": row.prompt_tokens,
        "input_tokens_details": {"cached_tokens": row.cached_tokens},
        "output_tokens": generated,
        "output_tokens_details": {"reasoning_tokens": generated - row.answer_tokens},
        "total_tokens": row.prompt_tokens + generated,
    }


def _errors(row: Any) -> dict[str, Any]:
    found = [
        {
            "code": CODES.get(error["code"], error["code"]),
            "line": error["line"],
            "message": error["message"],
            "param": error["field"],
        }
        for error in row.errors or ()
    ]
    return {"object": "list", "data": found}


def _extras(row: Any, extras: Extras) -> dict[str, Any]:
    document = job_document(row, extras.eta)
    names = ("name", "priority", "paused", "policy", "progress", "eta_s", "eta_ground", "error_count")
    return {
        **{name: document[name] for name in names},
        "stage_counts": dict(extras.stages),
        "query_counts": document["counts"],
        "search_usage": document["usage"],
    }
