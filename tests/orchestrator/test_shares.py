"""Admission: the window holds, weights count, nobody starves."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.dispatch import ADMIT_AT_ONCE, cost_of, shares, windows
from storage.jobs import JobLoad
from storage.settings import Settings


def load(job_id: str, **changes: object) -> JobLoad:
    plain = JobLoad(
        job_id=job_id,
        model="m",
        priority="batch",
        weight=1.0,
        policy={"candidates": 2},
        waiting=1000,
        running=0,
        ended=10,
        spent_tokens=1000,
        admitted_tokens=0.0,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


loads = st.lists(
    st.builds(
        load,
        st.uuids().map(str),
        waiting=st.integers(0, 300),
        running=st.integers(0, 100),
        ended=st.integers(0, 50),
        admitted_tokens=st.floats(0, 1e6),
        weight=st.floats(0.1, 10),
        priority=st.sampled_from(["interactive", "batch", "background"]),
    ),
    max_size=6,
    unique_by=lambda item: item.job_id,
)


@given(loads, st.integers(0, 200))
def test_the_window_holds_but_for_one_query_of_each_starving_job(group: list[JobLoad], window: int) -> None:
    given_out = Counter({share.job_id: share.count for share in shares(group, {"m": window})})
    running = sum(item.running for item in group)
    starving = sum(item.running == 0 and item.waiting > 0 for item in group)
    assert sum(given_out.values()) + running <= max(window, running) + starving
    assert all(given_out[item.job_id] <= item.waiting for item in group)


@given(loads)
def test_every_job_with_nothing_running_gets_a_query_in(group: list[JobLoad]) -> None:
    given_out = {share.job_id for share in shares(group, {"m": 1})}
    assert {item.job_id for item in group if item.running == 0 and item.waiting} <= given_out


@given(loads, st.integers(1, 200))
def test_room_is_never_left_while_work_waits(group: list[JobLoad], window: int) -> None:
    admitted = sum(share.count for share in shares(group, {"m": window}))
    free = window - sum(item.running for item in group)
    assert admitted >= min(max(0, free), sum(item.waiting for item in group))


def test_weights_divide_the_room() -> None:
    given_out = {share.job_id: share.count for share in shares([load("a", weight=3.0), load("b")], {"m": 400})}
    assert given_out == {"a": 300, "b": 100}


def test_a_newcomer_shares_from_its_first_moment_and_does_not_catch_up_alone() -> None:
    old = load("old", admitted_tokens=1e6, running=50)
    new = load("new", ended=0, spent_tokens=0, policy={"candidates": 1})
    given_out = {share.job_id: share.count for share in shares([old, new], {"m": 150})}
    assert given_out["old"] > 10
    assert given_out["new"] > 10


def test_interactive_goes_first() -> None:
    given_out = {
        share.job_id: share.count
        for share in shares([load("batch", running=1), load("chat", priority="interactive", waiting=5)], {"m": 6})
    }
    assert given_out == {"chat": 5}


def test_a_paused_model_admits_nothing() -> None:
    settings = Settings()
    allowed = windows({"m": 8}, ["m", "other"], {"m"}, settings)
    assert allowed == {"m": 0, "other": settings.window_min}
    assert shares([load("a")], allowed) == []


def test_the_window_grows_with_the_fleet_and_not_with_the_job() -> None:
    settings = Settings(window_factor=2.0, window_min=4)
    assert windows({"m": 640}, ["m"], set(), settings) == {"m": 1280}
    small, large = (shares([load("a", waiting=waiting)], {"m": 100}) for waiting in (1_000, 1_000_000))
    assert small == large


def test_cost_is_learned_from_what_ended() -> None:
    assert cost_of(load("a", ended=4, spent_tokens=400)) == 100.0
    assert cost_of(load("a", ended=0, spent_tokens=0, policy={"candidates": 2})) == 512.0
    assert ADMIT_AT_ONCE > 0
