from __future__ import annotations

from pathlib import Path

import pytest

from reasoning.stages import Stage
from training.data.journal import lines
from training.scenes import teacher
from training.small.harvest import HARVESTED, harvest, read
from training.small.stream import OWN, Collator, Phase
from training.small.tokenizer import build_tokenizer
from workers.engine.protocol import Engine
from workers.engine.registry import open_engine


@pytest.fixture(scope="module")
def demo() -> Engine:
    return open_engine("demo", {"device": "cpu", "slots": 16, "apart": False})


def test_a_harvest_goes_on_where_it_stopped_and_ranks_by_the_teacher(demo: Engine, tmp_path: Path) -> None:
    part, whole = tmp_path / "part.jsonl", tmp_path / "whole.jsonl"
    harvest(demo, whole, seed=3, scenes=12)
    harvest(demo, part, seed=3, scenes=5)
    harvest(demo, part, seed=3, scenes=12)
    demo.close()
    assert list(lines(part)) == list(lines(whole))
    found = read(whole)
    assert set(found) == set(HARVESTED)
    assert sum(map(len, found.values())) > 0
    for scene, _, pair in found[Stage.CAPTION]:
        assert pair.worse != teacher.caption(scene)
    for scene, question, pair in found[Stage.REASONING]:
        assert pair.worse != teacher.reason(scene, question).text
        assert pair.kept[Stage.CAPTION]

    collate = Collator(build_tokenizer(), (Phase(9, (2, 3), {f"{OWN}reasoning": 1.0}),), 4, seed=1, harvested=found)
    batch = collate([{"row": row} for row in range(4)])
    assert batch["input_ids"].shape[0] == 4
    assert (batch["labels"] != -100).any(dim=1).all()
