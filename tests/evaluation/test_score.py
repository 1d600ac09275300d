from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation import Record, score
from evaluation.score import wilson
from reasoning.errors import BadInput


def record(conclusion: str | None, answer: str = "3", tokens: int = 10) -> Record:
    return Record(custom_id="q", conclusion=conclusion, answer=answer, tokens=tokens)


def test_failed_queries_count_as_wrong() -> None:
    report = score([record("3"), record("three"), record("4"), record(None)])
    assert (report.n, report.correct, report.failed, report.tokens) == (4, 2, 1, 40)
    assert report.accuracy == 0.5
    assert report.low < 0.5 < report.high


def test_nothing_to_score_is_said() -> None:
    with pytest.raises(BadInput, match="no answers"):
        score([])


def test_wilson_agrees_with_published_values() -> None:
    # Agresti and Coull (1998): 0 of 10 has the upper end 0.278 at 95 %.
    low, high = wilson(0, 10)
    assert low == 0.0
    assert high == pytest.approx(0.2775, abs=1e-3)


@given(st.integers(1, 2000), st.data())
def test_the_interval_holds_the_share_and_shrinks(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    low, high = wilson(correct, n)
    assert 0.0 <= low <= correct / n + 1e-12
    assert correct / n - 1e-12 <= high <= 1.0
    assert correct or low == 0.0
    assert correct < n or high == 1.0
    wide_low, wide_high = wilson(correct * 4, n * 4)
    assert wide_high - wide_low <= high - low + 1e-12
