"""When a job may end: what other jobs have ahead of it counts, and not knowing is an answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.forecast import Forecast, Look, forecast, pace_of
from storage.jobs import End, JobLoad

NOW = 300.0


def row(job_id: str = "own", **columns: Any) -> Any:
    counts = {"waiting": 90, "running": 10, "done": 100, "degraded": 0, "failed": 0, "total": 200}
    times = {"created_at": 0.0, "started_at": 0.0, "paused_at": None}
    return SimpleNamespace(**{"id": job_id, "model": "m", "status": "running", **counts, **times, **columns})


def load(job_id: str = "own", **columns: Any) -> JobLoad:
    base: dict[str, Any] = {"model": "m", "priority": "batch", "weight": 1.0, "policy": {}, "admitted_tokens": 0.0}
    return JobLoad(
        **{"job_id": job_id, **base, "waiting": 90, "running": 10, "ended": 100, "spent_tokens": 1000, **columns}
    )


def seen(*loads: JobLoad, ends: list[End] | None = None, **more: Any) -> Look:
    """The model ends a query of ten tokens a second."""
    steady = [End("own", NOW - each, 10.0) for each in range(200)]
    return Look(loads or (load(),), {"m": steady if ends is None else ends}, frozenset({"m"}), **more)


def between(found: Forecast, seconds: float) -> bool:
    assert found.low_s is not None
    assert found.high_s is not None
    return found.low_s < seconds < found.high_s


def test_alone_the_pace_decides():
    found = forecast(row(), seen(), NOW)
    assert found.ground == "pace"
    assert found.others == 0
    assert between(found, 100.0)
    assert found.likely_s == pytest.approx(100.0, rel=0.05)
    assert found.pace == pytest.approx(1.0, rel=0.02)


def test_more_urgent_work_goes_first_and_counts_in_full():
    found = forecast(row(), seen(load(), load("first", priority="interactive", waiting=490)), NOW)
    assert found.others == 500
    assert between(found, 600.0)


def test_an_equal_shares_until_the_job_is_done():
    found = forecast(row(), seen(load(), load("equal", waiting=100_000)), NOW)
    assert found.others == 100
    assert between(found, 200.0)
    heavy = forecast(row(), seen(load(), load("equal", waiting=100_000, weight=3.0)), NOW)
    assert between(heavy, 400.0)
    small = forecast(row(), seen(load(), load("equal", waiting=20, running=0)), NOW)
    assert between(small, 120.0)


def test_less_urgent_work_waits_but_for_what_runs():
    found = forecast(row(), seen(load(), load("later", priority="background", waiting=100_000)), NOW)
    assert found.others == 10
    assert between(found, 110.0)


def test_work_of_another_model_does_not_count():
    found = forecast(row(), seen(load(), load("elsewhere", model="other", priority="interactive")), NOW)
    assert found.others == 0


def test_a_query_that_costs_more_takes_longer():
    found = forecast(row(), seen(load(), load("first", priority="interactive", spent_tokens=4000)), NOW)
    assert between(found, 500.0)


def test_nobody_can_tell_before_anything_ended():
    young = row(done=0, total=100)
    assert forecast(young, seen(), NOW).ground == "too_early", "the pace of other jobs says nothing of its own queries"
    few = seen(ends=[End("own", NOW - 1, 10.0)] * 5)
    assert forecast(row(), few, NOW).ground == "too_early"
    assert forecast(row(), few, NOW).likely_s is None


def test_earlier_jobs_are_asked_while_it_is_too_early():
    young = row(done=2, waiting=98, running=0, total=100)
    few = [End("own", NOW - 5.0, 10.0)]
    alone = seen(load(), ends=few, history={"own": (400.0, 1000.0)})
    found = forecast(young, alone, NOW)
    assert (found.ground, found.low_s, found.high_s) == ("history", 400.0, 1000.0)
    crowded = seen(load(), load("first", priority="interactive"), ends=few, history={"own": (400.0, 1000.0)})
    assert forecast(young, crowded, NOW).ground == "too_early", "how long the others take is not known"
    assert forecast(young, seen(load(), ends=few, history={"own": (50.0, 100.0)}), NOW).ground == "too_early"


@pytest.mark.parametrize(
    ("columns", "look", "ground"),
    [
        ({"status": "completed"}, {}, "ended"),
        ({"status": "validating"}, {}, "validating"),
        ({"waiting": 0, "running": 0}, {}, "finalizing"),
        ({"paused_at": 1.0}, {}, "paused"),
        ({}, {"paused": frozenset({"m"})}, "paused"),
        ({"model": "nobody's"}, {}, "no_worker"),
        ({"model": "loading"}, {"starting": frozenset({"loading"})}, "starting"),
        ({"model": "nobody's", "created_at": NOW - 1.0}, {}, "starting"),
    ],
)
def test_it_says_why_there_is_none(columns: dict[str, Any], look: dict[str, Any], ground: str):
    found = forecast(row(**columns), seen(**look), NOW)
    assert (found.ground, found.likely_s) == (ground, None)


def test_a_job_that_stands_still_is_told_from_one_that_others_hold_up():
    old = [End("own", 100.0 - each, 10.0) for each in range(50)]
    found = forecast(row(), seen(ends=old), 500.0)
    assert (found.ground, found.quiet_s) == ("stalled", 400.0)
    held = forecast(row(), seen(load(), load("first", priority="interactive"), ends=old), 500.0)
    assert held.ground == "pace"


def test_a_pace_needs_enough_ends():
    assert pace_of([290.0] * 19, 0.0, NOW) is None
    assert pace_of([NOW - each for each in range(200)], 0.0, NOW) == pytest.approx(1.0, rel=0.02)
