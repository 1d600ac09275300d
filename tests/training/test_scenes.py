from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import Expected, agrees
from reasoning.errors import BadInput
from reasoning.grammar import read_answer
from reasoning.stages import STAGES
from training.data.structured import faults
from training.scenes import teacher
from training.scenes.files import scene_of, scenes, write
from training.scenes.questions import LETTERS, Question, value
from training.scenes.render import PIXELS, render
from training.scenes.world import THINGS, Level, Scene, stream

rows = st.builds(lambda level, seed: next(scenes(seed, 1, level)), st.sampled_from(list(THINGS)), st.integers(0, 2**40))


@given(st.sampled_from(list(THINGS)), st.integers(0, 2**62))
def test_a_row_is_a_pure_function_of_its_seed(level: Level, seed: int) -> None:
    assert list(scenes(seed, 2, level)) == list(scenes(seed, 2, level))


@given(st.integers(0, 2**62), st.integers(0, 1000))
def test_streams_of_different_splits_differ(seed: int, index: int) -> None:
    drawn = {stream(split, seed, index).bytes(16) for split in ("train", "judge", "valid", "test")}
    assert len(drawn) == 4


@given(rows)
def test_things_stand_in_different_cells_in_reading_order(row: tuple[Scene, Question]) -> None:
    places = [thing.place for thing in row[0].things]
    assert places == sorted(set(places))


@given(rows)
def test_the_answer_is_what_the_program_computes(row: tuple[Scene, Question]) -> None:
    scene, question = row
    computed = value(question, scene)
    if question.choices:
        assert len(set(question.choices)) == len(question.choices)
        assert question.choices[LETTERS.index(question.answer)] == computed
    else:
        assert question.answer == computed
    assert computed != "unknown"


@given(rows, st.sampled_from(get_args(teacher.Manner)))
def test_the_teacher_writes_four_stages_that_end_on_the_answer(
    row: tuple[Scene, Question], manner: teacher.Manner
) -> None:
    scene, question = row
    text = teacher.tagged(teacher.teach(scene, question, manner))
    assert faults(text, Expected(question.answer, question.choices)) == []
    assert list(read_answer(text)) == list(STAGES)
    assert teacher.reason(scene, question, manner=manner).value == question.answer


@given(rows)
def test_saying_the_checks_aloud_changes_nothing(row: tuple[Scene, Question]) -> None:
    scene, question = row
    said = {place: teacher.checks(question, thing) for place, thing in enumerate(scene.things)}
    assert teacher.reason(scene, question, said) == teacher.reason(scene, question)


@settings(max_examples=20)
@given(rows)
def test_images_show_every_thing_and_never_change(row: tuple[Scene, Question]) -> None:
    scene, _ = row
    image = render(scene)
    assert image.shape == (PIXELS, PIXELS, 3)
    assert PIXELS >= 96
    assert np.array_equal(image, render(scene))
    empty = render(Scene((), scene.floor))
    for thing in scene.things:
        side = PIXELS // 3
        cell = (slice(thing.row * side, (thing.row + 1) * side), slice(thing.column * side, (thing.column + 1) * side))
        assert np.abs(image[cell].astype(int) - empty[cell]).max() > 20


def test_what_is_written_can_be_submitted_and_drawn_again(tmp_path: Path) -> None:
    path = write(3, 6, "medium", tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["custom_id"] for line in lines}) == 6
    for line, (scene, question) in zip(lines, scenes(3, 6, "medium"), strict=True):
        assert (tmp_path / line["images"][0]).is_file()
        assert (line["question"], line["answer"]) == (question.text, question.answer)
        assert tuple(line.get("choices", ())) == question.choices
        assert scene_of(line["custom_id"]) == (scene, question)
    with (tmp_path / "questions.tsv").open(newline="") as table:
        sheet = list(csv.DictReader(table, delimiter="\t"))
    assert [row["answer"] for row in sheet] == [line["answer"] for line in lines]


def test_every_kind_of_answer_turns_up_in_fair_shares() -> None:
    asked = [question for _, question in scenes(0, 600, "medium")]
    assert {question.family for question in asked} == {"subtract", "compare", "count", "exist", "attribute", "relation"}
    assert 0.2 < sum(bool(question.choices) for question in asked) / 600 < 0.4
    said = [question.answer for question in asked if question.answer in ("yes", "no")]
    assert 0.35 < said.count("yes") / len(said) < 0.65


@pytest.mark.parametrize(
    ("seed", "count", "level", "message"),
    [(0, 1, "meduim", 'Did you mean "medium"'), (-1, 1, "easy", "seed is -1"), (0, 0, "easy", "count is 0")],
)
def test_wrong_arguments_are_named(seed: int, count: int, level: Level, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        write(seed, count, level, tmp_path)


def test_known_answers_agree_with_themselves() -> None:
    for _, question in scenes(1, 200, "hard"):
        assert agrees(question.answer, Expected(question.answer, question.choices))
