from __future__ import annotations

from collections import Counter
from math import ceil, log2

from hypothesis import given, settings
from hypothesis import strategies as st

from reasoning import seeds
from reasoning.tournament import bracket, knockout, standing

sizes = st.integers(1, 33)


@given(sizes)
def test_a_bracket_plays_n_minus_one_matches_in_log_rounds_and_the_best_wins(size: int) -> None:
    contest = bracket(range(size), max)
    assert contest.champion == size - 1
    assert len(contest.matches) == size - 1
    assert len({match.round for match in contest.matches}) == (ceil(log2(size)) if size > 1 else 0)


@given(sizes)
def test_all_open_matches_of_a_bracket_round_come_at_once_and_none_later(size: int) -> None:
    known: dict[tuple[int, int], int] = {}
    rounds = 0
    while (contest := bracket(range(size), lambda a, b: known.get((a, b)))).champion is None:
        opened = [match for match in contest.matches if match.winner is None]
        assert len({match.round for match in opened}) == 1
        known.update({(match.first, match.second): match.first for match in opened})
        rounds += 1
    assert rounds == (ceil(log2(size)) if size > 1 else 0)


@given(sizes, st.integers(0, 99))
def test_nobody_has_two_byes_running(size: int, salt: int) -> None:
    contest = bracket(range(size), lambda a, b: (a, b)[(a * 31 + b * 17 + salt) % 2])
    alive = list(range(size))
    idle_before: set[int] = set()
    for level in range(max((match.round for match in contest.matches), default=-1) + 1):
        played = [match for match in contest.matches if match.round == level]
        busy = {index for match in played for index in (match.first, match.second)}
        idle = set(alive) - busy
        assert not idle & idle_before
        idle_before = idle
        alive = [index for index in alive if index in idle] + [
            match.winner for match in played if match.winner is not None
        ]


@given(sizes, st.integers(0, 10**6), st.integers(0, 40))
def test_a_knock_out_resumes_where_it_stopped(size: int, seed: int, known: int) -> None:
    def noise(count: int) -> int:
        return seeds.pairing(seed, "q", "caption", 0, count)

    full = knockout(range(size), min, noise)
    assert full.champion == 0
    assert len(full.matches) == size - 1
    results = {(m.first, m.second): m.winner for m in full.matches[:known]}
    partial = knockout(range(size), lambda a, b: results.get((a, b)), noise)
    assert partial.matches[:known] == full.matches[:known]
    assert [m[:3] for m in partial.matches] == [m[:3] for m in full.matches[: known + 1]]


def test_the_first_pair_of_a_knock_out_is_uniform() -> None:
    counts: Counter[tuple[int, int]] = Counter()
    for seed in range(6000):
        match = knockout(range(4), lambda a, b: None, lambda k, seed=seed: seeds.pairing(seed, "q", "s", 0, k)).matches[
            0
        ]
        counts[match.first, match.second] += 1
    assert len(counts) == 12
    # 500 expected each; five standard deviations.
    assert all(abs(count - 500) < 5 * (500 * 11 / 12) ** 0.5 for count in counts.values())


def test_the_standing_puts_winners_first_and_leaves_the_beaten_out() -> None:
    contest = bracket([0, 1, 2, 3], lambda a, b: {(2, 3): 3}.get((a, b)))
    assert standing([0, 1, 2, 3], contest) == [3, 0, 1]


@given(st.integers(0, 2**63 - 1), st.text(max_size=20), st.integers(0, 64), st.integers(0, 10))
@settings(max_examples=100)
def test_seeds_have_63_bits_and_streams_do_not_meet(seed: int, custom_id: str, index: int, attempt: int) -> None:
    drawn = [
        seeds.candidate(seed, custom_id, "caption", 0, index, attempt),
        seeds.candidate(seed, custom_id, "caption", 0, index, attempt + 1),
        seeds.candidate(seed, custom_id, "reasoning", 0, index, attempt),
        seeds.pairing(seed, custom_id, "caption", 0, index),
        seeds.tie_break(seed, custom_id, "caption", 0, index, attempt),
        seeds.judge_words(seed, custom_id, "caption/r0/compare/0v1", 0),
        seeds.judge_words(seed, custom_id, "caption/r0/compare/0v1", 1),
    ]
    assert all(0 <= value < 2**63 for value in drawn)
    assert len(set(drawn)) == len(drawn)


def test_a_custom_id_cannot_spell_another_draw() -> None:
    assert seeds.candidate(0, "q:caption", "a", 0, 1) != seeds.candidate(0, "q", "caption:a", 0, 1)
    assert seeds.candidate(0, "\ud800", "a", 0, 1) != seeds.candidate(0, "?", "a", 0, 1)


def test_seeds_never_change_between_releases() -> None:
    assert seeds.candidate(7, "q-1", "caption", 0, 2, 1) == GOLDEN


GOLDEN = 5746986484698749945
