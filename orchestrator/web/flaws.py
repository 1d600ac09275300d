"""Why an answer is less than the end of a full search, and a candidate of no use, in words a person reads."""

from __future__ import annotations

FLAWS = {
    "incomplete_stage": "no text of a stage was closed, so the best unclosed one was kept",
    "judge_failed": "a call of the judge failed",
    "lost_candidates": "engine errors took candidates",
    "token_budget": "the token budget was spent",
    "deadline": "the time was up",
}
"""By the flaw of a stage or the reason of a degraded answer."""

UNUSABLE = {
    "truncated": "cut off by the token limit",
    "early_end": "ended before its closing tag",
    "no_close_tag": "came without its closing tag",
    "empty": "holds no text",
}
"""By the reason that the trace gives for a candidate."""


def told(flaw: str | None) -> str:
    """The flaw as a sentence part; one that is not known by its name."""
    return FLAWS.get(flaw or "", (flaw or "").replace("_", " "))


def unusable(reason: str | None) -> str:
    """Why a candidate cannot be used; a reason that is not known as it stands."""
    return UNUSABLE.get(reason or "", reason or "")
