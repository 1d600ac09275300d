"""Accuracy of a set of answers, with the interval that its size allows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.extract import Expected, agrees
from reasoning.errors import BadInput

_Z_95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One answered question. `conclusion` is None where the query failed; that counts as wrong."""

    custom_id: str
    conclusion: str | None
    answer: str
    choices: tuple[str, ...] = ()
    format_ok: bool | None = None
    """Whether the answer keeps the tag grammar strictly; None where that is not known."""
    tokens: int = 0
    """Tokens generated for this query, judging included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `score` found; shares are from 0 to 1."""

    n: int
    correct: int
    failed: int
    """Queries without an answer; they count as wrong."""
    accuracy: float
    low: float
    """Lower end of the 95 % Wilson interval of the accuracy."""
    high: float
    format_ok: float | None
    """Share of the answers that keep the tag grammar strictly, of those where it is known; None if of none."""
    tokens: int
    tokens_per_query: float

    def to_json(self) -> dict[str, Any]:
        """Plain values under the field names."""
        return asdict(self)


def score(records: Iterable[Record]) -> Report:
    """Compare each conclusion with its known answer.

    Raises:
        BadInput: no records, so that there is nothing to divide by.
    """
    rows = list(records)
    if not rows:
        raise BadInput("there are no answers to score; name a job whose lines carry an answer", code="nothing_to_score")
    answered = [row for row in rows if row.conclusion is not None]
    correct = sum(agrees(row.conclusion or "", Expected(row.answer, row.choices)) for row in answered)
    low, high = wilson(correct, len(rows))
    tokens = sum(row.tokens for row in rows)
    formats = [row.format_ok for row in answered if row.format_ok is not None]
    return Report(
        n=len(rows),
        correct=correct,
        failed=len(rows) - len(answered),
        accuracy=correct / len(rows),
        low=low,
        high=high,
        format_ok=sum(formats) / len(formats) if formats else None,
        tokens=tokens,
        tokens_per_query=tokens / len(rows),
    )


def wilson(correct: int, n: int, z: float = _Z_95) -> tuple[float, float]:
    """Wilson score interval of a share (E. B. Wilson, 1927): sound for small n and shares near 0 or 1."""
    share = correct / n
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the bound is the share itself, which rounding would miss by a hair.
    low = (middle - spread) / scale if correct else 0.0
    high = (middle + spread) / scale if correct < n else 1.0
    return low, high
