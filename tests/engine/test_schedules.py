"""Whatever arrives in whatever order, with whatever room: each answer is that of the plain reference, in every family.

Every token of every candidate is checked, and the logits that it was drawn from.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reasoning.errors import ModelError
from tests.engine import families
from tests.engine.families import Family
from tests.engine.kernel import reference as reference_kernel
from tests.engine.reference import Reference, ask, choose, generate
from tests.engine.stepping import MIB, Pictures, end, limits, run_until, step
from workers.engine import device
from workers.engine.adapters.base import Adapter
from workers.engine.adapters.choose import adapter_for
from workers.engine.admission import Limits
from workers.engine.loop import Loop
from workers.engine.protocol import Generate, Sampling
from workers.engine.ragged import Ragged
from workers.engine.sampling import Draw

QUESTIONS = ("a?", "what is in it", "b? or rather the other one, over there")
LABELS = ("1", "2")
SEEDS = 100
"""Apart, so that a seed tells the request it belongs to."""
CLOSE = 1e-3
"""Difference of logits whose own size is about ten: sums in another order."""

Item = tuple[str, tuple[str, ...], int, Sampling, str, int]
"""Question, images, candidates, sampling, what is done, and the steps made before the next item."""


class Drawn(dict[tuple[int, int], list[torch.Tensor]]):
    """Logits of all draws by seed and position: a row that was put back draws again."""

    def __repr__(self) -> str:
        return f"{len(self)} draws"


@pytest.fixture(scope="module", params=["mllama", *families.NAMES])
def family(request: pytest.FixtureRequest, mllama: Any, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return mllama if request.param == "mllama" else families.make(request.param, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def reference(family: Family, pictures: dict[str, bytes]) -> Reference:
    return Reference(families.fresh(family), Pictures(pictures))


@pytest.fixture(scope="module")
def adapter(family: Family) -> Adapter:
    found = adapter_for(*families.fresh(family))
    assert found
    return found


@pytest.fixture(scope="module", params=["padded", "ragged"])
def ragged(request: pytest.FixtureRequest, adapter: Adapter) -> Ragged | None:
    """Both ways to compute attention; without a GPU the second over plain torch."""
    return Ragged(adapter.heads, reference_kernel) if request.param == "ragged" else None


@pytest.fixture(scope="module")
def drawn() -> Iterator[Drawn]:
    """What the engine draws from, kept on the way."""
    found = Drawn()

    class Watched(Draw):
        def __call__(self, logits: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
            for seed, row in zip(self._seeds.tolist(), self._rows.tolist(), strict=True):
                found.setdefault((seed, int(positions[row])), []).append(logits[row].clone())
            return super().__call__(logits, positions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "Draw", Watched)
        yield found


class Schedule:
    """Requests put to a loop one by one, a few steps apart."""

    def __init__(
        self, adapter: Adapter, reference: Reference, drawn: Drawn, room: Limits, ragged: Ragged | None
    ) -> None:
        drawn.clear()
        self._drawn = drawn
        self.loop = Loop(adapter, reference.encoder, frozenset(reference.ends), room, ragged)
        self._reference = reference
        self._pictures = reference.pictures
        self._cancelled: set[int] = set()
        self._waiting: list[tuple[Future[Any], Any]] = []

    def follow(self, number: int, item: Item) -> None:
        """Submit the item, and make its steps."""
        question, images, count, sampling, kind, steps = item
        prompt = ask(question, images)
        more: dict[str, Any] = {"sampling": sampling, "group": question}
        if kind == "choose":
            self._put(choose(prompt, self._pictures, LABELS, group=question))
        else:
            seeds = range(SEEDS * number, SEEDS * number + count)
            second = (seeds[0], 1)
            more["cancelled"] = lambda: number in self._cancelled or (kind == "cut off" and second in self._drawn)
            future = self._put(generate(prompt, self._pictures, seeds=seeds, **more))
            if kind == "next stage":
                run_until(self.loop, future)
                path = future.result().candidates[-1].token_ids
                self._put(generate(prompt, self._pictures, seeds=(seeds[-1] + 1,), prefix_ids=path, **more))
        for _ in range(steps):
            step(self.loop)
        if kind == "cancel":
            self._cancelled.add(number)

    def check(self) -> None:
        """Run to the end and compare everything with the reference."""
        for future, request in self._waiting:
            run_until(self.loop, future)
            error = future.exception()
            if error is not None:
                assert isinstance(error, ModelError)
                assert error.code == "cancelled"
            elif isinstance(request, Generate):
                self._check_candidates(request, future.result().candidates)
            else:
                wanted = self._reference.shares(request.prompt, LABELS)
                assert future.result().probabilities == pytest.approx(wanted, abs=1e-4)

    def _put(self, request: Any) -> Future[Any]:
        future = self.loop.submit(request)
        self._waiting.append((future, request))
        return future

    def _check_candidates(self, request: Generate, candidates: Any) -> None:
        prompt, path = request.prompt, request.prefix_ids
        assert [candidate.seed for candidate in candidates] == list(request.seeds)
        for candidate in candidates:
            ids = candidate.token_ids
            assert ids == self._reference.sample(prompt, candidate.seed, request.sampling, path)
            for position in range(len(ids)):
                wanted = self._reference.logits(prompt, [*path, *ids[:position]])
                for found in self._drawn[candidate.seed, position]:
                    torch.testing.assert_close(found, wanted, atol=CLOSE, rtol=0)


asked = st.tuples(
    st.sampled_from(QUESTIONS),
    st.sampled_from([(), ("picture0",), ("picture1",), ("picture3", "picture0")]),
    st.integers(1, 4),
    st.sampled_from(
        [
            Sampling(temperature=t, top_p=p, top_k=k, max_tokens=m)
            for t, p, k, m in [(0.0, 1.0, 0, 5), (0.9, 0.9, 20, 6), (1.2, 1.0, 0, 3), (0.7, 0.5, 0, 1)]
        ]
    ),
    st.sampled_from(["generate", "generate", "next stage", "choose", "cancel"]),
    st.integers(0, 4),
)


@settings(max_examples=6, derandomize=True)
@given(
    plan=st.lists(asked, min_size=1, max_size=8),
    room=st.builds(
        limits,
        rows=st.integers(1, 6),
        trunks=st.integers(2, 6),
        pictures=st.integers(1, 3),
        memory=st.sampled_from([MIB // 2, 8 * MIB]),
        step_tokens=st.sampled_from([1, 100, 4096]),
        feature_bytes=st.sampled_from([4_000, 40_000]),
    ),
)
def test_any_schedule_gives_the_reference(
    adapter: Adapter, ragged: Ragged | None, reference: Reference, drawn: Drawn, plan: list[Item], room: Limits
):
    schedule = Schedule(adapter, reference, drawn, room, ragged)
    for number, item in enumerate(plan):
        schedule.follow(number, item)
    schedule.check()
    assert schedule.loop.counts()["rows"] == 0
    assert schedule.loop.counts()["crashes"] == 0
    end(schedule.loop)


def test_evicted_caches_cancelled_rows_and_a_full_batch_give_the_reference(
    adapter: Adapter, ragged: Ragged | None, reference: Reference, drawn: Drawn
):
    """The same on purpose: room for less than half of what is asked at once, and every third request cut off."""
    schedule = Schedule(adapter, reference, drawn, limits(4, 2, 1, 8 * MIB, 4096, feature_bytes=4_000), ragged)
    warm = Sampling(temperature=0.9, top_p=0.9, top_k=20, max_tokens=6)
    images = [("picture0",), ("picture1",), ("picture3", "picture0"), ()]
    for number in range(9):
        kind = ("generate", "next stage", "cut off")[number % 3]
        schedule.follow(number, (QUESTIONS[number % 2], images[number % 4], 3, warm, kind, 2))
    schedule.check()
    counts = schedule.loop.counts()
    assert counts["evictions"] > 0
    assert counts["vision_calls"] > 3
    assert counts["errors"] > 0
    assert counts["discarded_tokens"] > 0
    end(schedule.loop)
