from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.schedules.options import Options
from orchestrator.schedules.rule import Rule, checked_cron
from orchestrator.schedules.words import sentence
from reasoning.errors import BadInput
from tests.schedules.clocks import at


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        ({"kind": "cron", "cron": "0 0 30 2 *"}, "invalid_cron", "day of month"),
        ({"kind": "cron", "cron": "61 * * * *"}, "invalid_cron", "minute"),
        ({"kind": "cron", "cron": "* * * * * *"}, "invalid_cron", "6 fields"),
        ({"kind": "cron", "cron": "0 0 * * FRO"}, "invalid_cron", "day of week"),
        ({"kind": "cron", "cron": "0,0," * 80}, "invalid_cron", "200 characters"),
        ({"kind": "cron", "cron": ",".join("1" * 61) + " * * * *"}, "invalid_cron", "minute"),
        (
            {"kind": "cron", "cron": "0 3 * * *", "zone": "Europe/Berln"},
            "unknown_zone",
            'Did you mean "Europe/Berlin"?',
        ),
        ({"kind": "cron", "cron": "0 3 * * *", "zone": "../etc/passwd"}, "unknown_zone", "no time zone"),
        ({"kind": "cron", "cron": "0 3 * * *", "tz": "UTC"}, "unknown_field", "unknown rule field"),
        ({"kind": "interval", "every_s": 59}, "invalid_rule", "60"),
        ({"kind": "interval", "every_s": float("nan")}, "invalid_rule", "every_s"),
        ({"kind": "calendar", "times": []}, "invalid_rule", "times"),
        ({"kind": "calendar", "times": ["25:00"]}, "invalid_rule", "03:00"),
        ({"kind": "calendar", "times": ["03:00"], "weekdays": ["foo"]}, "invalid_rule", "foo"),
        ({"kind": "calendar", "times": ["03:00"], "weekdays": ["mon"], "month_days": [1]}, "contradiction", "not both"),
        ({"kind": "sometimes"}, "invalid_rule", "cron, interval, calendar"),
        ({"kind": "interval", "every_s": 60, "start": 100, "end": 100}, "contradiction", "nothing would ever run"),
        ({"kind": "interval", "every_s": 60, "start": "soon"}, "invalid_rule", "2026-11-30T03:00"),
        ({"kind": "interval", "every_s": 60, "jitter_s": 7200}, "invalid_rule", "jitter_s"),
        ({"kind": "interval", "every_s": 60, "max_runs": 0}, "invalid_rule", "max_runs"),
    ],
)
def test_a_rule_that_means_nothing_is_refused_by_name(data: dict[str, Any], code: str, said: str):
    with pytest.raises(BadInput) as refused:
        Rule.from_mapping(data)
    assert refused.value.code == code
    assert said in refused.value.message


def fields_or_code(text: str) -> int | str:
    try:
        return len(checked_cron(text).split())
    except BadInput as refused:
        return refused.code


@given(st.text(max_size=300))
def test_any_text_is_a_cron_expression_or_bad_input(text: str):
    assert fields_or_code(text) in (5, "invalid_cron")


@given(st.lists(st.sampled_from("0123456789*/,-#LWMONJAN "), max_size=20).map("".join))
def test_text_in_the_letters_of_cron_is_read_or_refused(text: str):
    assert fields_or_code(text) in (5, "invalid_cron")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"kind": "cron", "cron": "0 3 * * *", "zone": "Europe/Berlin"}, "At 03:00 every day, Europe/Berlin time"),
        ({"kind": "interval", "every_s": 60}, "Every minute"),
        ({"kind": "interval", "every_s": 5400}, "Every 90 minutes"),
        ({"kind": "calendar", "times": ["03:00"], "weekdays": ["fri", "mon"]}, "At 03:00 on Monday and Friday, UTC"),
        ({"kind": "calendar", "times": ["03:00"], "month_days": [-1]}, "At 03:00 on the last day of every month, UTC"),
        (
            {"kind": "interval", "every_s": 3600, "start": "2026-12-01T00:00", "jitter_s": 300, "max_runs": 3},
            "Every hour, from 2026-12-01 00:00, each up to 5 minutes later, 3 runs at most",
        ),
    ],
)
def test_sentences(data: dict[str, Any], words: str):
    rule = Rule.from_mapping(data)
    assert sentence(rule) == words
    assert Rule.from_mapping(rule.to_mapping()) == rule


def test_a_time_without_a_zone_is_one_of_the_rule():
    rule = Rule.from_mapping({"kind": "interval", "every_s": 60, "zone": "Asia/Tokyo", "start": "2026-12-01T00:00"})
    assert rule.start == at("2026-12-01T00:00", "Asia/Tokyo")
    assert Rule.from_mapping({"kind": "interval", "every_s": 60, "start": "2026-12-01T00:00+02:00"}).start == at(
        "2026-11-30T22:00"
    )


@pytest.mark.parametrize("overlap", ["skip", "queue_one", "cancel_running"])
def test_contradicting_policies_are_refused_with_a_sentence(overlap: str):
    with pytest.raises(BadInput, match="contradict each other: all missed slots are to run") as refused:
        Options.from_mapping({"overlap": overlap, "catch_up": "all"})
    assert refused.value.code == "contradiction"


@pytest.mark.parametrize("overlap", ["queue_all", "allow"])
def test_policies_that_go_together(overlap: str):
    options = Options.from_mapping({"overlap": overlap, "catch_up": "all"})
    assert Options.from_mapping(options.to_mapping()) == options


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"overlapp": "skip"}, 'Did you mean "overlap"?'),
        ({"catch_up_window_s": -1}, "catch_up_window_s"),
        ({"queue_cap": 0}, "queue_cap"),
        ({"output_prefix": "jobs/{slot}"}, 'begin with "results/"'),
        ({"output_prefix": "results/{schedule}"}, "must use {slot}"),
        ({"output_prefix": "results/{shedule}/{slot}"}, 'Did you mean "schedule"?'),
        ({"output_prefix": "results/{slot!r}"}, "no format"),
        ({"output_prefix": "results/../{slot}"}, "`..`"),
        ({"output_prefix": "results/{slot"}, "cannot be read"),
        ({"output_prefix": "results/{slot.__class__}"}, "unknown"),
        ({"alerts": {"url": "ftp://example.org"}}, "http"),
        ({"alerts": {"events": ["oops"]}}, "oops"),
        ({"alerts": {"accuracy_drop": 2}}, "0 to 1"),
        ({"alerts": "http://example.org"}, "object"),
    ],
)
def test_options_that_mean_nothing_are_refused(data: dict[str, Any], said: str):
    with pytest.raises(BadInput) as refused:
        Options.from_mapping(data)
    assert said in refused.value.message
