from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation import Expected
from reasoning.errors import BadInput, ModelError, Transient
from reasoning.records import Usage
from reasoning.stages import STAGES
from training.data import conversations, questions
from training.data.conversations import Conversation, Round
from training.data.generate import Terms, generate
from training.data.journal import Journal, lines
from training.data.questions import Known
from training.data.structured import faults
from training.data.teachers import Draft, ModelTeacher, ProgramTeacher

words = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=20).filter(
    lambda text: bool(text.replace("<image>", "").strip()) and text == text.replace("<image>", "").strip()
)
GOOD = (
    "".join(f"{stage.open_tag} about {stage.value} {stage.close_tag}\n" for stage in STAGES[:3])
    + "<CONCLUSION>3</CONCLUSION>"
)


@given(st.lists(st.tuples(words, st.lists(st.tuples(words, words), min_size=1, max_size=3)), max_size=4))
def test_rows_come_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, data: list) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [Conversation(name, "a.png", tuple(Round(*pair) for pair in pairs)) for name, pairs in data]
    assert conversations.write(rows, path) == len(rows)
    assert conversations.read([path], None) == rows


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("{", "line"),
        ("[]", "line"),
        ('{"image": "a.png", "conversations": []}', "id"),
        ('{"id": "x", "conversations": []}', "image"),
        ('{"id": "x", "image": "../a.png", "conversations": []}', "image"),
        ('{"id": "x", "image": "none.png", "conversations": []}', "image"),
        ('{"id": "x", "image": "a.png", "conversations": []}', "conversations"),
        ('{"id": "x", "image": "a.png", "conversations": [{"from": "human", "value": "q"}]}', "conversations"),
        (
            '{"id": "x", "image": "a.png", "conversations": [{"from": "gpt"}, {"from": "gpt", "value": "a"}]}',
            "conversations[0].from",
        ),
        (
            '{"id": "x", "image": "a.png", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt"}]}',
            "conversations[1].value",
        ),
    ],
)
def test_a_broken_row_is_named_by_file_line_and_field(line: str, field: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    path = tmp_path / "rows.jsonl"
    good = Conversation("g", "a.png", (Round("q", "a"),))
    path.write_text(json.dumps(good.to_json()) + "\n\n" + line + "\n")
    with pytest.raises(BadInput) as caught:
        conversations.read([path], tmp_path)
    assert f"{path}:3: {field}: " in caught.value.message
    assert (caught.value.line, caught.value.field) == (3, field)


def test_all_broken_rows_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{\n" * 30)
    with pytest.raises(BadInput, match=r"30 problems(.|\n)*and 10 more"):
        conversations.read([path], None)


def test_the_placeholder_for_the_image_is_dropped() -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    row = conversations.parse(json.dumps({"id": 7, "image": "a.png", "conversations": turns}), None)
    assert row == Conversation("7", "a.png", (Round("What?", "That."),))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GOOD, []),
        (GOOD.replace("3", "three"), []),
        (GOOD.replace("3", "4"), ["wrong_answer"]),
        (GOOD.replace("<CAPTION>", ""), ["missing_caption"]),
        (GOOD.replace("</CONCLUSION>", ""), ["missing_conclusion"]),
        (GOOD.replace(" about summary ", " "), ["empty_summary"]),
        (GOOD + "<SUMMARY>again</SUMMARY>", ["repeated_summary"]),
        (GOOD.replace("SUMMARY", "X").replace("CAPTION", "SUMMARY").replace("X", "CAPTION"), ["out_of_order"]),
        ("Sure! " + GOOD, ["text_outside_tags"]),
        ("", [f"missing_{stage.value}" for stage in STAGES]),
    ],
)
def test_all_four_tags_are_checked(text: str, found: list[str]) -> None:
    assert faults(text, Expected("3")) == found


@given(st.text(), st.text())
def test_any_text_can_be_checked(text: str, answer: str) -> None:
    assert isinstance(faults(text, Expected(answer)), list)


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"id": 1}\n{"id": 2}\n{"id"')
    with Journal(path) as journal:
        journal.append({"id": 3})
    assert [row["id"] for row in lines(path)] == [1, 2, 3]


def test_the_program_explains_every_scene(scenes_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    outcome = generate(scenes_folder / "questions.jsonl", out, ProgramTeacher())
    assert (outcome.rows, outcome.kept, outcome.failed, outcome.cost) == (12, 12, 0, 0.0)
    assert len(conversations.read([out], scenes_folder)) == 12


class Moody:
    """A teacher with a plan per row: what each attempt does."""

    def __init__(self, plans: dict[str, list[str]]) -> None:
        self.plans, self.calls, self.lock = plans, [], threading.Lock()  # type: ignore[var-annotated]

    def write(self, known: Known, attempt: int) -> Draft:
        with self.lock:
            self.calls.append((known.custom_id, attempt))
        mood = self.plans.get(known.custom_id, ["good"])[attempt]
        if mood == "busy":
            raise Transient("rate limit")
        if mood == "refused":
            raise ModelError("content filter", code="refused")
        text = "".join(f"{s.open_tag}x{s.close_tag}" for s in STAGES[:3]) + f"<CONCLUSION>{known.answer}</CONCLUSION>"
        return Draft(
            text if mood == "good" else text.replace("<CAPTION>", ""), Usage(prompt_tokens=100, generated_tokens=10)
        )


def test_faults_and_refusals_are_retried_recorded_and_charged(scenes_folder: Path, tmp_path: Path) -> None:
    names = [row.custom_id for row in questions.read(scenes_folder / "questions.jsonl")]
    teacher = Moody(
        {names[0]: ["busy", "bad", "good"], names[1]: ["bad", "bad", "bad"], names[2]: ["refused", "good", "good"]}
    )
    waited: list[float] = []
    terms = Terms(attempts=3, backoff_s=4.0, prompt_price=10.0, generated_price=100.0)
    out = tmp_path / "rows.jsonl"
    outcome = generate(scenes_folder / "questions.jsonl", out, teacher, terms, sleep=waited.append)
    assert (outcome.kept, outcome.failed) == (10, 2)
    assert dict(outcome.faults) == {"transient": 1, "missing_caption": 4, "refused": 1}
    errors = {row["id"]: row for row in lines(out.with_name("rows.jsonl.errors.jsonl"))}
    assert errors[names[1]]["code"] == "missing_caption"
    assert errors[names[1]]["attempts"] == 3
    assert errors[names[2]]["attempts"] == 1
    assert outcome.calls == 9 + 3 + 3 + 1
    assert outcome.cost == pytest.approx((14 * 100 * 10.0 + 14 * 10 * 100.0) / 1e6)
    assert all(2.0 <= pause <= 8.0 for pause in waited)
    assert len(waited) == 4


def test_a_second_run_asks_only_for_what_is_missing(scenes_folder: Path, tmp_path: Path) -> None:
    names = [row.custom_id for row in questions.read(scenes_folder / "questions.jsonl")]
    out = tmp_path / "rows.jsonl"
    generate(scenes_folder / "questions.jsonl", out, Moody({names[3]: ["refused"]}))
    again = Moody({})
    outcome = generate(scenes_folder / "questions.jsonl", out, again)
    assert (again.calls, outcome.kept, outcome.failed) == ([], 11, 1)
    outcome = generate(scenes_folder / "questions.jsonl", out, again, Terms(retry_failed=True))
    assert (again.calls, outcome.kept, outcome.failed) == ([(names[3], 0)], 12, 0)


def test_a_question_without_an_answer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"custom_id": "a", "question": "Q", "images": ["a.png"]}\n')
    with pytest.raises(BadInput, match=rf"{path}:1: answer: missing"):
        generate(path, tmp_path / "out.jsonl", ProgramTeacher())


def test_a_model_can_be_the_teacher(scenes_folder: Path) -> None:
    from workers.engine.protocol import Sampling
    from workers.engine.registry import open_engine

    rows = questions.read(scenes_folder / "questions.jsonl")
    digests, load_image = questions.load_images(rows, scenes_folder)
    engine = open_engine("scripted")
    try:
        teacher = ModelTeacher(
            engine,
            lambda row: digests[row.image],
            load_image,
            Sampling(temperature=0.7, top_p=1.0, top_k=0, max_tokens=500),
        )
        first, second = teacher.write(rows[0], 0), teacher.write(rows[0], 1)
    finally:
        engine.close()
    assert first.usage.prompt_tokens > 0
    assert first.text
    assert first.text != second.text
