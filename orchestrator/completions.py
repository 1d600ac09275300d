"""A query as one chat completion: the lines of OpenAI output files, and the answer to one question now.

Shapes: openai-batch-wire.md section 9.7. Chat-style usage names here; a batch as a whole has Responses-style ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reasoning.records import WHOLE
from reasoning.stages import Stage

ANSWERED = ("done", "degraded")

WITH_JOB: Mapping[str, tuple[str, str]] = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
}
"""Error of a line whose job ended before it did, by the query's status."""

_STATUS_OF = {
    "bad_image": 400,
    "bad_prompt": 400,
    "context_overflow": 400,
    "deadline": 504,
    "unknown_model": 404,
}
"""HTTP status of a query's error by its code. Others: 503 where trying again can help, else 500."""

_TYPES = {400: "invalid_request_error", 404: "not_found_error"}

LIMITS = ("deadline", "token_budget")
"""Reasons for a degraded answer that chat clients know as running out of length."""


def output_line(job: Any, row: Any, trace: Mapping[str, Any] | None) -> dict[str, Any]:
    """The line of an ended query in the output or error file of a batch."""
    line: dict[str, Any] = {
        "id": f"batch_req_{row.id}",
        "custom_id": row.custom_id,
        "response": None,
        "error": None,
    }
    if row.status in ANSWERED:
        line["response"] = _response(row, 200, completion(job, row, trace))
    elif ended_with_job(row):
        code, message = WITH_JOB[row.status]
        line["error"] = {"code": code, "message": message}
    else:
        line["response"] = _response(row, status_of(row), {"error": error_of(row)})
    return line


def completion(job: Any, row: Any, trace: Mapping[str, Any] | None) -> dict[str, Any]:
    """The `chat.completion` object of an answered query; with a trace the hidden stages are shown too."""
    message: dict[str, Any] = {"role": "assistant", "content": row.answer, "refusal": None}
    choice: dict[str, Any] = {
        "index": 0,
        "message": message,
        "finish_reason": "length" if row.degraded_reason in LIMITS else "stop",
        "logprobs": None,
    }
    search: dict[str, Any] = {"format_ok": row.format_ok, "degraded_reason": row.degraded_reason}
    if trace is not None:
        message["reasoning_content"] = hidden_text(trace)
        search["trace"] = trace
    if trace is not None or row.degraded_reason is not None or not row.format_ok:
        choice["search"] = search
    return {
        "id": completion_id(row),
        "object": "chat.completion",
        "created": int(row.ended_at),
        "model": job.model,
        "choices": [choice],
        "usage": usage_of(row.usage or {}),
    }


def completion_id(row: Any) -> str:
    """The same each time it is asked for: an output file that is written again is the same file."""
    return f"chatcmpl-{row.id}"


def usage_of(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Every token that was spent. Reasoning tokens are those a user does not see; `search` says where they went."""
    prompt, generated = usage.get("prompt_tokens", 0), usage.get("generated_tokens", 0)
    parts = {name: usage.get(f"{name}_tokens", 0) for name in ("kept", "discarded", "judged")}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": usage.get("cached_tokens", 0)},
        "completion_tokens_details": {"reasoning_tokens": generated - usage.get("answer_tokens", 0)},
        "search": {**parts, "candidates": usage.get("candidates", 0), "verdicts": usage.get("verdicts", 0)},
    }


def hidden_text(trace: Mapping[str, Any]) -> str:
    """The kept text of the stages before CONCLUSION, as chat clients show the thoughts of a model."""
    hidden = [stage for stage in trace["stages"] if stage["stage"] != Stage.CONCLUSION]
    kept = [(stage["stage"], item) for stage in hidden for item in stage["candidates"] if item.get("status") == "kept"]
    texts = (_before_conclusion(item["text"]) if stage == WHOLE else item["inner"] for stage, item in kept)
    return "\n\n".join(text.strip() for text in texts if text)


def _before_conclusion(text: str) -> str:
    return text.partition(Stage.CONCLUSION.open_tag)[0]


def ended_with_job(row: Any) -> bool:
    """Whether the query ended because its job did. One that passed its own deadline ended by itself."""
    return row.status in WITH_JOB and (row.error or {}).get("code", "").startswith("job_")


def status_of(row: Any) -> int:
    """The HTTP status that tells how a query failed."""
    error = row.error or {}
    if "errors" in error:  # refused by validation
        return 400
    return _STATUS_OF.get(error.get("code", ""), 503 if error.get("retryable") else 500)


def error_of(row: Any) -> dict[str, Any]:
    """The inner object of the error envelope."""
    error = row.error or {}
    listed = error.get("errors") or [{}]
    return {
        "message": error.get("message", "the query failed"),
        "type": _TYPES.get(status_of(row), "server_error"),
        "param": listed[0].get("field"),
        "code": error.get("code"),
    }


def _response(row: Any, status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": f"req_{row.id}", "body": body}
