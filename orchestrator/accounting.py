"""The usage of a query: every token that the engines counted for it, and where it went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reasoning.plan import Answer, Decision
from reasoning.records import Call, Ref
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
        "answer_tokens": _answer_tokens(calls, decision),
        "discarded_tokens": parts.discarded,
        "judged_tokens": parts.judged,
        "vision_calls": parts.total.vision_calls,
        "engine_seconds": round(parts.total.seconds, 6),
        "candidates": sum(len(call.candidates) for call in calls),
        "verdicts": sum(call.verdict is not None for call in calls),
    }


def _answer_tokens(calls: Sequence[Call], decision: Decision) -> int:
    """Tokens of the last candidate of the path, which the user sees; of a whole answer in one text, all of it."""
    if not isinstance(decision, Answer) or not decision.path:
        return 0
    shown = decision.path[-1]
    return sum(item.tokens for call in calls for item in call.candidates if Ref(call.spec.key, item.index) == shown)
