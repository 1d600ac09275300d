from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.schedules.due import LISTED_S, Decision, Plan, next_due, slots_due
from orchestrator.schedules.options import Options
from orchestrator.schedules.overlap import may_start, place
from orchestrator.schedules.rule import Rule
from tests.schedules.clocks import at

DAY = 86400.0
NOON = at("2026-11-23T12:00")


def plan(
    rule: dict[str, Any] | None = None, paused_at: float | None = None, runs_left: int | None = None, **options: Any
):
    chosen = Rule.from_mapping(rule or {"kind": "interval", "every_s": 3600})
    return Plan(rule=chosen, options=Options.from_mapping(options), paused_at=paused_at, runs_left=runs_left)


def actions(decision: Decision) -> list[str]:
    return [slot.action for slot in decision.slots]


def reasons(decision: Decision) -> set[str]:
    return {slot.reason for slot in decision.slots}


def test_a_slot_runs_at_its_second_and_not_before():
    assert slots_due(plan(), NOON - 1, NOON - 0.001).slots == ()
    decision = slots_due(plan(), NOON - 1, NOON)
    assert [(slot.due_at, slot.action) for slot in decision.slots] == [(NOON, "run")]
    assert slots_due(plan(), decision.cursor_at, NOON).slots == ()


def test_a_clock_that_goes_backwards_yields_nothing():
    decision = slots_due(plan(), NOON, NOON - 7200)
    assert decision == Decision((), NOON)


@pytest.mark.parametrize("catch_up", ["none", "latest", "all"])
def test_a_moment_of_lateness_drops_nothing(catch_up: str):
    overlap = "allow" if catch_up == "all" else "skip"
    assert actions(slots_due(plan(catch_up=catch_up, overlap=overlap), NOON - 1, NOON + 59)) == ["run"]


def test_three_days_of_downtime_without_catching_up():
    decision = slots_due(plan(catch_up="none"), NOON - 3 * DAY, NOON + 600)
    assert actions(decision) == ["missed"] * 72
    assert reasons(decision) == {"late"}
    assert decision.cursor_at == NOON + 600


def test_three_days_of_downtime_and_the_latest_within_an_hour():
    decision = slots_due(plan(), NOON - 3 * DAY, NOON + 600)
    assert actions(decision) == ["missed"] * 71 + ["run"]
    assert decision.slots[-1].due_at == NOON


def test_three_days_of_downtime_with_nothing_inside_the_window():
    decision = slots_due(plan({"kind": "cron", "cron": "0 3 * * *"}), NOON - 3 * DAY, NOON)
    assert actions(decision) == ["missed"] * 3
    assert "longer than the catch-up window of 1 hour" in decision.slots[-1].note


def test_the_latest_of_several_inside_the_window_supersedes_the_others():
    decision = slots_due(plan({"kind": "interval", "every_s": 600}), NOON - 1800, NOON + 30)
    assert actions(decision) == ["missed", "missed", "run"]
    assert {slot.reason for slot in decision.slots[:2]} == {"superseded"}


def test_three_days_of_downtime_caught_up_to_a_cap():
    wanted = plan(catch_up="all", overlap="queue_all", catch_up_window_s=2 * DAY, catch_up_cap=20)
    decision = slots_due(wanted, NOON - 3 * DAY, NOON)
    assert actions(decision) == ["missed"] * 52 + ["run"] * 20
    assert [slot.reason for slot in decision.slots].count("late") == 23
    assert [slot.reason for slot in decision.slots].count("over_cap") == 29


def test_a_pause_skips_and_resuming_fires_nothing_old():
    paused = slots_due(plan(paused_at=NOON - 1.5 * 3600), NOON - 3 * 3600, NOON + 1)
    assert actions(paused) == ["missed", "skipped", "skipped"]
    assert reasons(paused) == {"late", "paused"}
    assert slots_due(plan(), paused.cursor_at, NOON + 1800).slots == ()


def test_maximum_runs_end_the_schedule():
    wanted = plan(catch_up="all", overlap="allow", catch_up_window_s=DAY, runs_left=2)
    assert actions(slots_due(wanted, NOON - 5 * 3600, NOON)) == ["run", "run"]
    assert slots_due(plan(runs_left=0), NOON - 1, NOON).slots == ()
    assert next_due(plan(runs_left=0), NOON) is None
    assert next_due(plan(runs_left=1), NOON) == NOON + 3600


def test_years_of_downtime_take_bounded_steps():
    wanted = plan({"kind": "interval", "every_s": 60}, catch_up="all", overlap="queue_all", catch_up_window_s=DAY)
    since, steps, found = NOON - 2 * 365 * DAY, 0, []
    more = True
    while more:
        decision = slots_due(wanted, since, NOON)
        assert len(decision.slots) <= 1001
        since, more, steps = decision.cursor_at, decision.more, steps + 1
        found += decision.slots
    assert found[0].reason == "unattended"
    assert len(found) == LISTED_S / 60 + 1
    assert [slot.action for slot in found[-11:]] == ["missed"] + ["run"] * 10
    assert steps < 100


@given(
    st.sampled_from([60, 300, 3600, 86400]),
    st.floats(0, 5 * DAY),
    st.lists(st.floats(0, DAY), max_size=6),
    st.sampled_from([("none", "skip"), ("latest", "skip"), ("latest", "queue_all"), ("all", "allow")]),
)
def test_however_often_the_clock_ticks_each_slot_is_decided_once(
    every: int, down: float, ticks: list[float], policies: tuple[str, str]
):
    wanted = plan({"kind": "interval", "every_s": every}, catch_up=policies[0], overlap=policies[1])
    cursor, decided = NOON, []
    for now in [NOON + down, *sorted(NOON + down + tick for tick in ticks)]:
        more = True
        while more:
            decision = slots_due(wanted, cursor, now)
            cursor, more = decision.cursor_at, decision.more
            decided += [slot.due_at for slot in decision.slots]
    assert decided == sorted(set(decided))
    assert len(decided) == int(cursor // every) - int(NOON // every)


def test_placing():
    assert place("skip", running=0, waiting=0, queue_cap=1).action == "start"
    assert place("skip", running=1, waiting=0, queue_cap=1).reason == "overlap"
    assert place("queue_one", running=1, waiting=0, queue_cap=5).action == "wait"
    assert place("queue_one", running=1, waiting=1, queue_cap=5).reason == "queue_full"
    assert place("queue_all", running=1, waiting=4, queue_cap=5).action == "wait"
    assert place("queue_all", running=1, waiting=5, queue_cap=5).reason == "queue_full"
    assert place("cancel_running", running=2, waiting=0, queue_cap=1).cancel
    assert place("allow", running=9, waiting=9, queue_cap=1).action == "start"


def test_starting_in_line():
    assert may_start("queue_all", running=0, earlier_waiting=0)
    assert not may_start("queue_all", running=1, earlier_waiting=0)
    assert not may_start("queue_all", running=0, earlier_waiting=1)
    assert may_start("allow", running=5, earlier_waiting=5)
