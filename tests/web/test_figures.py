"""Numbers, charts, brackets, progress: pure, and checked as such."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.forecast import Forecast, Ground
from orchestrator.web import bracket, causes, charts, marks, numbers, progress
from reasoning.tournament import bracket as play
from storage import rollups
from storage.rollups import Sums

DURATIONS = [
    (0.0841, "84 ms"),
    (3.24, "3.2 s"),
    (59.97, "1 min 00 s"),
    (125.0, "2 min 05 s"),
    (3599.7, "1 h 00 min"),
    (4320.0, "1 h 12 min"),
    (273600.0, "3 d 4 h"),
]


@pytest.mark.parametrize(("value", "words"), DURATIONS)
def test_durations_read_well(value: float, words: str):
    assert numbers.seconds(value) == words


def test_nothing_is_not_zero():
    assert numbers.count(None) == numbers.seconds(None) == numbers.percent(0, 0) == numbers.DASH
    assert numbers.count(0) == "0"
    assert numbers.count(1234567) == "1\u202f234\u202f567"


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0.00"), (1234.5, "1\u202f234.50"), (0.0312, "0.031"), (3e-6, "< 0.0001")]
)
def test_costs_read_well(value: float, words: str):
    assert numbers.money(value) == words


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_a_hundred_per_cent_means_all(part: int, more: int):
    assert numbers.percent(part, part + more) != "100 %"
    assert numbers.percent(part, part) == "100 %"


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 1e9)), max_size=8))
def test_stacked_parts_fill_their_bar_and_no_more(parts: list[tuple[str, float]]):
    segments = charts.stacked(parts)
    there = [value for _, value in parts if value > 0]
    assert len(segments) == len(there)
    if segments:
        assert sum(segment.width for segment in segments) <= 1000.5
        assert segments[-1].x + segments[-1].width <= 1000.5
        assert all(segment.width >= 4 for segment in segments)


BAR = re.compile(r"M(-?[\d.]+) ([\d.]+)v-([\d.]+)h([\d.]+)v[\d.]+z")


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=168))
def test_bars_over_time_stay_in_their_box_and_none_is_missing(values: list[tuple[int, int]]):
    chart = charts.columns([Sums(done=done, failed=failed) for done, failed in values], 6_000_000.0, 60)
    ended, failed = BAR.findall(chart.ended + chart.partial), BAR.findall(chart.failed)
    for x, foot, tall, width in ended + failed:
        assert float(x) >= 0
        assert float(x) + float(width) <= chart.width + 0.11
        assert float(tall) <= float(foot) == chart.height
    assert len(ended) == len(chart.bars) == sum(done + failed > 0 for done, failed in values)
    assert len(failed) == sum(failed > 0 for _, failed in values)
    assert all(float(tall) >= 2 for _, _, tall, _ in failed)


def test_a_bar_tells_its_numbers():
    chart = charts.columns([Sums(), Sums(done=1999, failed=1, tokens=7)], 1_780_000_020.0, 60)
    assert [bar.told for bar in chart.bars] == [
        "2026-05-28 20:27 UTC: 2\u202f000 ended, 1 failed, 7 tokens; median wait \u2013, run \u2013"
    ]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("a tiny yellow cube", "a tiny yellow cylinder", ("cube", "cylinder")),
        ("so option B", "so option C", ("B", "C")),
        ("B", "C", ("B", "C")),
        ("three red balls and one cube here", "three red balls here", ("and one cube", "")),
        ("the same", "the same", None),
        ("nothing of this text stands there", "other words make up that whole one", None),
    ],
)
def test_what_two_candidates_differ_in_is_told_in_their_words(first: str, second: str, told: tuple[str, str] | None):
    found = marks.says(first, second)
    assert (None if found is None else (found.first, found.second)) == told


@given(st.integers(2, 16), st.randoms())
def test_a_bracket_joins_every_match_and_ends_at_the_champion(count: int, noise: Any):
    contest = play(range(count), lambda a, b: noise.choice((a, b)))
    verdicts = [{"pair": [m.first, m.second], "winner": m.winner} for m in contest.matches]
    drawing = bracket.draw(verdicts, contest.champion)
    assert drawing is not None
    assert len(drawing.lines) == 2 * (count - 1)
    assert drawing.nodes[-1].label == str(contest.champion)
    places = [(node.x, node.y) for node in drawing.nodes]
    assert len(set(places)) == len(places)
    assert all(0 <= x <= drawing.width and 0 <= y <= drawing.height for x, y in places)


def test_too_many_entrants_are_left_to_the_table():
    verdicts = [{"pair": [2 * n, 2 * n + 1], "winner": 2 * n} for n in range(20)]
    assert bracket.draw(verdicts, None) is None
    assert bracket.draw([], None) is None


@given(st.floats(0, 1e8))
def test_histogram_places_agree_with_their_quantiles(milliseconds: float):
    histogram = [0] * rollups.STEPS
    histogram[rollups.place(milliseconds)] += 1
    value = rollups.quantile(histogram, 1.0)
    assert value is not None
    assert value * 1000 >= min(int(milliseconds), 2 ** (rollups.STEPS - 1)) * 0.99


def test_a_forecast_is_told_in_words():
    def told(ground: Ground, low_s: float | None = None, high_s: float | None = None, **more: Any) -> str:
        return progress.told(Forecast(ground, low_s, high_s, **more))

    assert told("pace", 1110.0, 1290.0) == "about 19 min to 22 min left"
    assert told("pace", 290.0, 300.0) == "about 5 min left"
    assert told("pace", 1.0, 40.0) == "less than a minute left"
    assert told("history", 250.0, 850.0) == "about 5 min to 15 min left, to judge by earlier jobs"
    assert told("pace", 290.0, 300.0, others=1) == "about 5 min left, with 1 query of other jobs"
    assert told("stalled", quiet_s=400.0) == "nothing has ended for 6 min 40 s"
    for ground in get_args(Ground):
        assert told(ground, quiet_s=1.0) or ground == "ended", ground


def test_progress_is_rounded_down():
    counts = dict.fromkeys(progress.STATES, 0) | {"done": 1999, "running": 1}
    assert progress.progress(SimpleNamespace(total=2000, **counts)).percent == "99.9 %"


def test_messages_that_differ_in_numbers_are_one_cause():
    messages = [f'image {n} of "photo-{n}.png" is {n}00x{n}00, sha 9f86d081884c7d65' for n in range(37)]
    rows = [
        SimpleNamespace(job_id="j", error={"code": "too_large", "message": text, "stage": "caption"})
        for text in messages
    ]
    (cause,) = causes.group([*rows])
    assert cause.count == 37
    assert cause.message == messages[0]
    assert len(cause.examples) == causes.EXAMPLES
    assert cause.filter == "status:failed,expired error:too_large"  # stored before errors had marks
