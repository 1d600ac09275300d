from __future__ import annotations

from itertools import pairwise, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.schedules.occurrences import begins_at, following, occurrences
from orchestrator.schedules.rule import Rule
from tests.schedules import clocks
from tests.schedules.clocks import at, said

BERLIN = "Europe/Berlin"
ZONES = (
    "UTC",
    BERLIN,
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/Santiago",
    "Pacific/Chatham",
)


def cron(expression: str, zone: str = "UTC", **more: object) -> Rule:
    return Rule.from_mapping({"kind": "cron", "cron": expression, "zone": zone, **more})


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.sampled_from(["*/2", "*/5", "*/7"])
    several = st.lists(number, min_size=2, max_size=3, unique=True).map(lambda found: ",".join(map(str, found)))
    return st.one_of(st.just("*"), number.map(str), span, step, several)


EXPRESSIONS = st.tuples(
    st.one_of(st.integers(0, 59).map(str), st.sampled_from(["*/15", "0,30", "7-9"])),
    _field(0, 23),
    st.one_of(st.just("*"), _field(1, 28)),
    st.one_of(st.just("*"), st.sampled_from(["3", "10-11", "*/2"])),
    st.one_of(st.just("*"), _field(0, 6)),
).map(" ".join)

# Days around the changes of these zones in 2026, and a day without any.
STARTS = st.sampled_from(
    [
        at(day)
        for day in ("2026-03-28", "2026-10-24", "2026-03-07", "2026-10-31", "2026-04-04", "2026-09-05", "2026-06-10")
    ]
)


@settings(max_examples=60)
@given(EXPRESSIONS, st.sampled_from(ZONES), STARTS, st.integers(0, 86400))
def test_slots_are_those_found_by_looking_at_every_minute(expression: str, zone: str, start: float, shift: int):
    since, until = start + shift, start + shift + 2 * 86400
    found = list(takewhile(lambda due: due <= until, occurrences(cron(expression, zone), since)))
    assert found == clocks.slots(expression, zone, since, until)


def test_a_skipped_time_is_due_at_the_first_instant_after_the_gap():
    rule = cron("30 2 * * *", BERLIN)
    assert said(following(rule, at("2026-03-28", BERLIN), 3), BERLIN) == [
        "03-28 02:30 +0100",
        "03-29 03:00 +0200",
        "03-30 02:30 +0200",
    ]


def test_several_times_in_the_gap_are_one_slot():
    rule = cron("*/20 2,3 * * *", BERLIN)
    found = said(following(rule, at("2026-03-29", BERLIN), 4), BERLIN)
    assert found == ["03-29 03:00 +0200", "03-29 03:20 +0200", "03-29 03:40 +0200", "03-30 02:00 +0200"]


def test_a_repeated_time_is_due_once_and_at_the_first():
    rule = cron("30 2 * * *", BERLIN)
    assert said(following(rule, at("2026-10-25", BERLIN), 2), BERLIN) == ["10-25 02:30 +0200", "10-26 02:30 +0100"]


def test_deciding_in_the_repeated_hour_does_not_bring_it_back():
    rule = cron("45 2 * * *", BERLIN)
    assert said(following(rule, at("2026-10-25T02:30*", BERLIN), 1), BERLIN) == ["10-26 02:45 +0100"]


def test_a_rule_of_every_hour_follows_elapsed_time():
    hourly = cron("15 * * * *", BERLIN)
    autumn = said(following(hourly, at("2026-10-25T01:30", BERLIN), 3), BERLIN)
    spring = said(following(hourly, at("2026-03-29T00:30", BERLIN), 3), BERLIN)
    assert autumn == ["10-25 02:15 +0200", "10-25 02:15 +0100", "10-25 03:15 +0100"]
    assert spring == ["03-29 01:15 +0100", "03-29 03:15 +0200", "03-29 04:15 +0200"]


def test_an_interval_counts_elapsed_seconds_through_a_change():
    rule = Rule.from_mapping({"kind": "interval", "every_s": 7200, "zone": BERLIN, "start": "2026-10-25T00:00"})
    found = following(rule, 0.0, 4)
    assert [later - first for first, later in pairwise(found)] == [7200.0] * 3
    assert said(found, BERLIN)[1:3] == ["10-25 02:00 +0200", "10-25 03:00 +0100"]


def test_a_day_that_a_zone_never_had():
    rule = cron("0 12 * * *", "Pacific/Apia")
    found = said(following(rule, at("2011-12-29T00:00", "Pacific/Apia"), 3), "Pacific/Apia")
    assert found == ["12-29 12:00 -1000", "12-31 00:00 +1400", "12-31 12:00 +1400"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"times": ["15:30", "03:00"]}, ["11-24 03:00 +0000", "11-24 15:30 +0000", "11-25 03:00 +0000"]),
        (
            {"times": ["03:00"], "weekdays": ["Sunday", "wed"]},
            ["11-25 03:00 +0000", "11-29 03:00 +0000", "12-02 03:00 +0000"],
        ),
        ({"times": ["03:00"], "month_days": [-1, 15]}, ["11-30 03:00 +0000", "12-15 03:00 +0000", "12-31 03:00 +0000"]),
    ],
)
def test_calendar_rules(rule: dict[str, object], expected: list[str]):
    found = Rule.from_mapping({"kind": "calendar", **rule})
    assert said(following(found, at("2026-11-23T20:00"), 3), "UTC") == expected


def test_start_is_included_and_end_is_not():
    rule = cron("0 * * * *", start="2026-11-23T03:00", end="2026-11-23T06:00")
    assert said(following(rule, 0.0, 9), "UTC") == [f"11-23 0{hour}:00 +0000" for hour in (3, 4, 5)]


def test_a_leap_day_is_found_and_nothing_is_searched_for_ever():
    assert said(following(cron("0 0 29 2 *"), at("2026-01-01"), 1), "UTC") == ["02-29 00:00 +0000"]
    assert following(cron("0 0 * 2 MON#5"), at("2026-01-01"), 1) == []


@given(st.floats(1, 3600), st.integers(0, 10**6).map(float))
def test_jitter_is_the_same_for_the_same_slot_and_within_bounds(jitter: float, due: float):
    rule = cron("0 3 * * *", jitter_s=jitter)
    begins = begins_at(rule, "sched_1", due)
    assert due <= begins <= due + jitter
    assert begins == begins_at(rule, "sched_1", due)
    assert begins_at(cron("0 3 * * *"), "sched_1", due) == due


def test_schedules_at_one_time_are_spread():
    rule = cron("0 3 * * *", jitter_s=600)
    begins = [begins_at(rule, f"sched_{number}", 0.0) for number in range(200)]
    assert len({int(begin // 60) for begin in begins}) == 10
