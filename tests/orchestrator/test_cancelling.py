"""The rule of stopping a job, each of its promises by itself."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cancelling import GRACE_S, Step, gives_up, step
from storage.transitions import JOB_ENDED, JOB_MOVES

TIMES = st.floats(0, 1e10)


@pytest.mark.parametrize("status", ["validating", "running"])
def test_a_first_ask_lets_what_runs_end_unless_it_says_otherwise(status: str) -> None:
    assert step(status, cancelling=False, killed=False, at_once=False) is Step.DRAIN
    assert step(status, cancelling=False, killed=False, at_once=True) is Step.KILL


def test_a_second_ask_for_good_kills_once() -> None:
    assert step("cancelling", cancelling=True, killed=False, at_once=True) is Step.KILL
    assert step("cancelling", cancelling=True, killed=True, at_once=True) is Step.NOTHING


@pytest.mark.parametrize(("status", "at_once"), list(product(sorted(JOB_MOVES), (False, True))))
def test_an_ask_that_is_repeated_changes_nothing(status: str, at_once: bool) -> None:
    first = step(status, cancelling=False, killed=False, at_once=at_once)
    if first in (Step.DRAIN, Step.KILL):
        again = step("cancelling", cancelling=True, killed=first is Step.KILL, at_once=at_once)
        assert again is Step.NOTHING


@pytest.mark.parametrize(("killed", "at_once"), list(product((False, True), repeat=2)))
def test_a_job_on_its_way_out_or_out_by_a_cancel_is_left_alone(killed: bool, at_once: bool) -> None:
    for status in ("finalizing", "cancelled"):
        assert step(status, cancelling=True, killed=killed, at_once=at_once) is Step.NOTHING


@pytest.mark.parametrize("at_once", [False, True])
def test_any_other_end_refuses(at_once: bool) -> None:
    for status in sorted(JOB_ENDED | {"finalizing"}):
        assert step(status, cancelling=False, killed=False, at_once=at_once) is Step.REFUSE


@given(TIMES, TIMES)
def test_a_kill_gives_up_at_any_time(asked: float, now: float) -> None:
    assert gives_up(asked, asked, now)


@given(TIMES, st.floats(0, 2 * GRACE_S))
def test_without_one_the_grace_decides(asked: float, waited: float) -> None:
    now = asked + waited
    assert gives_up(asked, None, now) is (now - asked >= GRACE_S)
