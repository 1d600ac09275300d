from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reasoning.stages import Stage
from training.data.journal import lines
from training.scenes import teacher
from training.small.harvest import HARVESTED, harvest, read, rehearse
from training.small.pairs import Pair
from training.small.stream import OWN, Collator, Phase
from training.small.tokenizer import build_tokenizer
from workers.engine.protocol import Engine
from workers.engine.registry import open_engine


@pytest.fixture(scope="module")
def demo() -> Iterator[Engine]:
    engine = open_engine("demo", {"device": "cpu", "slots": 16})
    yield engine
    engine.close()


def test_a_harvest_goes_on_where_it_stopped_and_ranks_by_the_teacher(demo: Engine, tmp_path: Path) -> None:
    part, whole = tmp_path / "part.jsonl", tmp_path / "whole.jsonl"
    harvest(demo, whole, seed=3, scenes=12)
    harvest(demo, part, seed=3, scenes=5)
    harvest(demo, part, seed=3, scenes=12)
    assert list(lines(part)) == list(lines(whole))
    found = read(whole)
    assert set(found) == set(HARVESTED)
    assert sum(map(len, found.values())) > 0
    for scene, _, pair in found[Stage.CAPTION]:
        assert isinstance(pair, Pair)
        assert pair.worse != teacher.caption(scene)
    for scene, question, pair in found[Stage.REASONING]:
        assert isinstance(pair, Pair)
        assert pair.worse != teacher.reason(scene, question).text
        assert pair.kept[Stage.CAPTION]

    collate = Collator(build_tokenizer(), (Phase(9, (2, 3), {f"{OWN}reasoning": 1.0}),), 4, seed=1, own=found)
    batch = collate([{"row": row} for row in range(4)])
    assert batch["input_ids"].shape[0] == 4
    assert (batch["labels"] != -100).any(dim=1).all()


def test_what_a_model_rehearses_is_its_own_answer_word_for_word(demo: Engine, tmp_path: Path) -> None:
    rehearse(demo, tmp_path / "said.jsonl", seed=3, scenes=4)
    said = [answer for _, _, answer in read(tmp_path / "said.jsonl")["policy"]]
    assert said
    tokenizer = build_tokenizer()
    collate = Collator(
        tokenizer, (Phase(9, (2, 3), {f"{OWN}policy": 1.0}),), 1, seed=1, own=read(tmp_path / "said.jsonl")
    )
    labels = collate([{"row": 0}])["labels"]
    learnt = tokenizer.decode(labels[labels >= 0], skip_special_tokens=True)
    assert learnt in said
