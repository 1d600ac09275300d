"""The trained weights that ship with the package: stage by stage the engine writes what one `generate` call writes."""

from __future__ import annotations

import pytest

from benchmarks.engine_work import Work, ask, make_work
from reasoning.records import Finish
from reasoning.stages import STAGES
from tests.engine.reference import Reference, generate
from workers.engine.local import DeviceOptions, TransformersEngine
from workers.engine.protocol import Sampling
from workers.engine.registry import demo_folder

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=320)


@pytest.fixture(scope="module")
def work() -> Work:
    return make_work(6)


def test_four_greedy_stages_are_one_greedy_text(work: Work):
    """`generate` knows no end tags: it writes on after each. The engine stops there, and goes on from there."""
    plain = Reference(demo_folder(), work.pictures)
    engine = TransformersEngine(str(demo_folder()), DeviceOptions(device="cpu", memory_mb=256))
    paths: dict[str, tuple[int, ...]] = {query.custom_id: () for query in work.queries}
    for stage in STAGES:
        futures = {
            name: engine.generate(
                generate(
                    ask(query, ""),
                    work.pictures,
                    sampling=GREEDY,
                    stop=stage.close_tag,
                    group=name,
                    prefix_ids=paths[name],
                )
            )
            for query in work.queries
            if (name := query.custom_id)
        }
        for name, future in futures.items():
            (candidate,) = future.result().candidates
            assert candidate.finish is Finish.STOP
            paths[name] += candidate.token_ids
    engine.close()
    for query in work.queries:
        text = paths[query.custom_id]
        assert text == plain.greedy(ask(query, ""), len(text)), query.custom_id
