"""Slots: whatever moves, each holder finds its own keys and values again."""

from __future__ import annotations

import math
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.engine import pools
from workers.engine.graphs import located
from workers.engine.pools import Pool, PoolFull, PoolShape, Slot

SHAPE = PoolShape(layers=2, heads=1, dim=2, dtype=torch.float32, device=torch.device("cpu"))


def fill(pool: Pool[Slot], slot: Slot, value: float, length: int) -> None:
    pool.keys[:, slot.place, :, :length] = value
    pool.values[:, slot.place, :, :length] = -value
    slot.length = length


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["claim", "activate", "park", "drop", "grow"]), st.integers(0, 9), st.integers(1, 9)),
        max_size=40,
    )
)
def test_contents_follow_their_slots(steps: list[tuple[str, int, int]]):
    gone: list[Slot] = []
    pool: Pool[Slot] = Pool(SHAPE, slots=5, block=2, budget=10_000, given_up=gone.append)
    value: dict[Slot, float] = {}
    for number, (step, which, length) in enumerate(steps):
        held = list(value)
        slot = held[which % len(held)] if held else None
        if step == "claim":
            fresh = Slot()
            try:
                pool.claim(fresh, length)
            except PoolFull:
                continue
            value[fresh] = number + 1.0
            fill(pool, fresh, value[fresh], length)
        elif step == "grow":
            pool.reserve(length)
        elif slot and step == "activate" and slot.place >= pool.active:
            pool.activate(slot)
        elif slot and step == "park" and slot.place < pool.active:
            pool.park(slot)
        elif slot and step == "drop":
            pool.drop(slot)
            value.pop(slot)
        for lost in gone:
            value.pop(lost)
        gone.clear()
        assert {slot.place: slot for slot in value} == pool.holders
        assert [slot.place for slot in pool.in_use] == list(range(pool.active))
        assert sum(1 for _ in pool.parked) == len(value) - pool.active
        for slot, content in value.items():
            assert pool.holders[slot.place] is slot
            assert (pool.keys[:, slot.place, :, : slot.length] == content).all()
            assert (pool.values[:, slot.place, :, : slot.length] == -content).all()


def test_a_new_pool_holds_no_chance_bits():
    """Masked positions are read too: garbage of 1e38 would outweigh the mask."""
    litter = [torch.full((1 << 20,), 1e38) for _ in range(4)]
    del litter
    pool: Pool[Slot] = Pool(SHAPE, slots=64, block=64, budget=1 << 30)
    pool.claim(Slot(), 3000)
    assert not pool.keys.any()
    assert not pool.values.any()


def test_the_oldest_unpinned_goes_first():
    gone: list[Slot] = []
    pool: Pool[Slot] = Pool(SHAPE, slots=3, block=2, budget=10_000, given_up=gone.append)
    slots = [Slot() for _ in range(3)]
    for slot in slots:
        pool.claim(slot, 1)
    slots[0].pins = 1
    pool.touch(slots[1])
    pool.claim(Slot(), 1)
    assert gone == [slots[2]]
    pool.activate(slots[1])
    pool.claim(Slot(), 1)
    for slot in pool.parked:
        slot.pins = 1
    with pytest.raises(PoolFull):
        pool.claim(Slot(), 1)


def test_a_length_beyond_the_budget_is_refused():
    pool: Pool[Slot] = Pool(SHAPE, slots=4, block=2, budget=4 * 2 * SHAPE.position_bytes)
    pool.reserve(8)
    assert pool.slots == 1
    with pytest.raises(PoolFull):
        pool.reserve(9)


def test_the_demoted_go_before_the_oldest_until_they_are_used_again():
    gone: list[Slot] = []
    pool: Pool[Slot] = Pool(SHAPE, slots=3, block=2, budget=10_000, given_up=gone.append)
    old, read, again = Slot(), Slot(), Slot()
    for slot in (old, read, again):
        pool.claim(slot, 1)
    pool.demote(read)
    pool.demote(again)
    pool.touch(again)
    for expected in (read, old, again):
        pool.claim(Slot(), 1)
        assert gone[-1] is expected


def test_slots_that_do_not_fit_beside_the_old_ones_become_fewer(monkeypatch: pytest.MonkeyPatch):
    """While slots get longer a device holds them twice. Nobody in use is lost for it."""
    room, real = [1_000_000], pools._zeros

    def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        size = math.prod(shape) * dtype.itemsize
        if size > room[0]:
            raise torch.OutOfMemoryError("no room for the longer ones")
        room[0] -= size
        made = real(shape, dtype, device)
        weakref.finalize(made, lambda: room.__setitem__(0, room[0] + size))
        return made

    monkeypatch.setattr(pools, "_zeros", zeros)
    shape = PoolShape(layers=1, heads=1, dim=10, dtype=torch.float32, device=torch.device("cpu"))
    pool: Pool[Slot] = Pool(shape, slots=700, block=1, budget=700_000)
    pool.reserve(10)
    assert pool.slots == 700
    held = [Slot() for _ in range(300)]
    for number, slot in enumerate(held):
        pool.claim(slot, 10)
        pool.keys[:, slot.place] = number
        slot.length = 10
        pool.activate(slot)
    pool.reserve(12)
    assert pool.length == 12
    assert 300 <= pool.slots < 700
    assert [int(pool.keys[0, slot.place, 0, 9, 0]) for slot in held] == list(range(300))


def test_a_recording_knows_slots_of_another_length_at_the_same_address():
    pool: Pool[Any] = Pool(SHAPE, slots=12, block=4, budget=10**6)
    memory: Any = SimpleNamespace(twigs=pool, trunks=pool, pictures=None)
    before = located(memory)
    pool.keys = pool.keys.view(2, 8, 1, 6, 2)
    assert located(memory) != before
