"""The usage of a query: every token that the engines counted for it, and where it went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reasoning.plan import Answer, Decision
from reasoning.records import Call
from reasoning.usage import spent


def usage_of(calls: Sequence[Call], decision: Decision) -> dict[str, Any]:
    """Usage as stored with the query and shown on its line; tokens, counts and seconds of engine work.

    kept + discarded + judged equals the generated tokens (invariant 6 of the design).
    """
    parts = spent(calls, decision.path if isinstance(decision, Answer) else ())
    return {
        "prompt_tokens": parts.total.prompt_tokens,
        "cached_tokens": parts.total.cached_tokens,
        "generated_tokens": parts.total.generated_tokens,
        "kept_tokens": parts.kept,
        "discarded_tokens": parts.discarded,
        "judged_tokens": parts.judged,
        "vision_calls": parts.total.vision_calls,
        "engine_seconds": round(parts.total.seconds, 6),
        "candidates": sum(len(call.candidates) for call in calls),
        "verdicts": sum(call.verdict is not None for call in calls),
    }
