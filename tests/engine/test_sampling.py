"""Counter-based noise: repeatable, independent of neighbours, and drawn from the right distribution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from workers.engine.protocol import Sampling
from workers.engine.sampling import Draw, gumbel

CPU = torch.device("cpu")

samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_p=st.sampled_from([0.3, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 50]),
    max_tokens=st.just(1),
)


@given(rows=st.lists(st.tuples(samplings, st.integers(0, 2**63 - 1), st.integers(0, 500)), min_size=1, max_size=6))
def test_a_row_draws_the_same_in_any_company(rows: list[tuple[Sampling, int, int]]):
    logits = torch.randn((len(rows), 40), generator=torch.Generator().manual_seed(1)) * 3
    together = Draw([r[0] for r in rows], [[r[1]] for r in rows], 40, CPU)(logits, torch.tensor([r[2] for r in rows]))
    for place, (sampling, seed, position) in enumerate(rows):
        alone = Draw([sampling], [[seed]], 40, CPU)(logits[place : place + 1], torch.tensor([position]))
        assert alone[0] == together[place]


def test_greedy_is_the_best_token():
    logits = torch.randn((50, 40))
    greedy = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=1)
    warm = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=1)
    draw = Draw([greedy] * 49 + [warm], [[seed] for seed in range(50)], 40, CPU)
    assert (draw(logits, torch.zeros(50, dtype=torch.int64))[:49] == logits.argmax(-1)[:49]).all()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.6, 5, 1.0), (1.3, 0, 0.7), (0.8, 6, 0.8)]
)
def test_draws_have_the_distribution_of_transformers(temperature: float, top_k: int, top_p: float):
    logits = torch.tensor([[2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0]])
    wanted = TemperatureLogitsWarper(temperature)(None, logits)
    wanted = TopKLogitsWarper(top_k)(None, wanted) if top_k else wanted
    wanted = TopPLogitsWarper(top_p)(None, wanted) if top_p < 1 else wanted
    count = 20_000
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=1)
    draw = Draw([sampling] * count, [[seed] for seed in range(count)], 8, CPU)
    drawn = draw(logits.expand(count, -1), torch.full((count,), 7))
    shares = torch.bincount(drawn, minlength=8) / count
    assert torch.allclose(shares, torch.softmax(wanted[0], -1), atol=0.012)


def test_positions_and_seeds_are_independent():
    seeds = torch.arange(2000)
    same = gumbel(seeds, torch.zeros(2000, dtype=torch.int64), torch.zeros((2000, 1), dtype=torch.int64)).squeeze()
    next_position = gumbel(
        seeds, torch.ones(2000, dtype=torch.int64), torch.zeros((2000, 1), dtype=torch.int64)
    ).squeeze()
    assert abs(float(same.mean()) - 0.5772) < 0.1
    assert abs(float(torch.corrcoef(torch.stack([same, next_position]))[0, 1])) < 0.08
    assert abs(float(torch.corrcoef(torch.stack([same[:-1], same[1:]]))[0, 1])) < 0.08


def test_of_several_best_tokens_a_greedy_row_takes_the_first_in_any_company():
    """As `generate` does. In half precision the best are often equal."""
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0, *[3.0] * 40]])
    greedy = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=1)
    warm = Sampling(temperature=1.0, top_p=0.9, top_k=20, max_tokens=1)
    mixed = Draw([warm, greedy], [[2], [1, 3]], 44, logits.device)
    assert mixed(logits.repeat(2, 1), torch.tensor([0, 0])).tolist()[1:] == [1, 1]


@pytest.mark.parametrize("temperature", [1e-6, 1e-40, 5e-324])
def test_the_least_temperature_takes_the_best_token(temperature: float):
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(1)) * 20
    cold = Sampling(temperature=temperature, top_p=1.0, top_k=0, max_tokens=1)
    assert Draw([cold], [[1]], 50, logits.device)(logits, torch.tensor([0])).item() == logits.argmax()
