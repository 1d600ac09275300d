"""Why an answer is less than the end of a full search, in words a person reads."""

from __future__ import annotations

FLAWS = {
    "incomplete_stage": "no text of a stage was closed, so the best unclosed one was kept",
    "judge_failed": "a call of the judge failed",
    "lost_candidates": "engine errors took candidates",
    "token_budget": "the token budget was spent",
    "deadline": "the time was up",
}
"""By the flaw of a stage or the reason of a degraded answer."""


def told(flaw: str | None) -> str:
    """The flaw as a sentence part; one that is not known by its name."""
    return FLAWS.get(flaw or "", (flaw or "").replace("_", " "))
