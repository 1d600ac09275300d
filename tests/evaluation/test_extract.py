from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.extract import Expected, agrees, chosen, number, words, yes_no

COLORS = ("red", "blue", "green")


@pytest.mark.parametrize(
    ("conclusion", "choice"),
    [
        ("B", 1),
        ("B.", 1),
        ("(B)", 1),
        ("**B**", 1),
        ("B. blue", 1),
        ("The answer is B", 1),
        ("The correct option is (C).", 2),
        ("Therefore, the answer is option A.", 0),
        ("blue", 1),
        ("It is blue.", 1),
        ("The ball is green", 2),
        ("A ball that is green", 2),
        ("red or blue", None),
        ("I cannot tell", None),
        ("D", None),
        ("", None),
    ],
)
def test_an_option_is_read_by_letter_or_by_text(conclusion: str, choice: int | None) -> None:
    assert chosen(conclusion, COLORS) == choice


def test_the_known_answer_may_be_a_letter_or_a_text() -> None:
    assert agrees("B", Expected("blue", COLORS))
    assert agrees("blue", Expected("B", COLORS))
    assert agrees("B", Expected("b", COLORS))
    assert not agrees("A", Expected("blue", COLORS))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("There are three things left.", 3),
        ("1,200 people", 1200),
        ("-2.50", -2.5),
        ("3 or 4", None),
        ("", None),
    ],
)
def test_numbers(text: str, value: float | None) -> None:
    found = number(text)
    assert (None if found is None else float(found)) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [("yes", "yes"), ("No, there is none.", "no"), ("The answer is yes.", "yes"), ("maybe", None), ("nothing", None)],
)
def test_yes_and_no(text: str, said: str | None) -> None:
    assert yes_no(text) == said


def test_number_and_letter_do_not_mix() -> None:
    numbers = ("1", "3", "4")
    assert agrees("3", Expected("B", numbers))
    assert agrees("B", Expected("B", numbers))
    assert not agrees("4", Expected("B", numbers))


@given(st.text(), st.sampled_from(["red", "3", "yes", "no", "a cube"]))
def test_any_text_can_be_compared(text: str, answer: str) -> None:
    assert agrees(text, Expected(answer)) in (True, False)
    assert agrees(text, Expected("A", ("x", "y"))) in (True, False)


@given(st.sampled_from(["red", "7", "yes", "no", "purple", "large shiny cube"]))
def test_an_answer_agrees_with_itself(answer: str) -> None:
    assert agrees(answer, Expected(answer))
    assert agrees(f" {answer.upper()}. ", Expected(answer))


@given(st.text())
def test_words_is_stable(text: str) -> None:
    assert words(words(text)) == words(words(words(text)))
