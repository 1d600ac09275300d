"""Key and value memory in slots of equal length, those in use at the front.

A decode step reads the slots of all running rows as one tensor view, without gathering. For this the slots in
use stay together at the front: when one leaves, the last one in use takes its place, which costs one copy of a
single sequence. Parked slots, kept for reuse and given up oldest first, fill the pool from its far end.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch


class PoolFull(Exception):
    """No slot can be had now: all are in use or pinned, or the budget does not allow longer ones."""


@dataclass(slots=True, eq=False)
class Slot:
    """Whoever holds a place in a pool. `length` is how many positions of it hold keys and values."""

    place: int = -1
    """-1: no place (never had one, or it was given up)."""
    length: int = 0
    pins: int = 0
    """While above zero the place is not given up."""
    used: int = 0


S = TypeVar("S", bound=Slot)

_DEMOTED = 1 << 48
"""More than any clock here counts to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolShape:
    """What a pool holds: keys and values of `layers` layers, `heads` heads and `dim` numbers a head."""

    layers: int
    heads: int
    dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def position_bytes(self) -> int:
        """Bytes of one position in all layers, keys and values."""
        return 2 * self.layers * self.heads * self.dim * self.dtype.itemsize


class Pool(Generic[S]):
    """Slots of one kind. `keys` and `values` are (layers, slots, heads, length, dim)."""

    def __init__(
        self,
        shape: PoolShape,
        *,
        slots: int,
        block: int,
        budget: int,
        given_up: Callable[[S], None] = lambda _: None,
    ) -> None:
        """At most `slots` slots and `budget` bytes; `given_up` hears of parked slots that lost their place.

        Slots are as long as the longest one asked for, rounded up to a multiple of `block` positions: each time they
        get longer, all that is held moves.
        """
        self.shape = shape
        self._wanted = slots
        self._budget = budget
        self._block = block
        self._given_up = given_up
        self._clock = 0
        self.holders: dict[int, S] = {}
        """By place: those in use from 0 on, those parked from the far end."""
        self.active = 0
        """How many are in use."""
        self.length = 0
        self.slots = 0
        self.evictions = 0
        self._free: list[int] = []
        """Places that nobody holds, in ascending order; the last one is taken first."""
        self.keys = self.values = torch.empty(0)
        self._allocate(block)

    @property
    def in_use(self) -> list[S]:
        """The slots in use, by place."""
        return [self.holders[place] for place in range(self.active)]

    @property
    def parked(self) -> Iterator[S]:
        """The slots kept for reuse."""
        return (slot for place, slot in self.holders.items() if place >= self.active)

    @property
    def held_bytes(self) -> int:
        """Bytes of keys and values that slots hold now."""
        return self.shape.position_bytes * sum(slot.length for slot in list(self.holders.values()))

    def claim(self, slot: S, length: int) -> None:
        """Give `slot` a parked place with room for `length` positions.

        Raises:
            PoolFull: nothing can be given up for it.
        """
        self.reserve(length)
        if not self._free and not self._shortened(length):
            self._give_up_oldest()
        slot.length = 0
        self._settle(slot, self._free.pop())
        self.touch(slot)

    def reserve(self, length: int) -> None:
        """Make every slot hold `length` positions. Raises PoolFull."""
        if length > self.length:
            self._allocate(self._rounded(length))

    def touch(self, slot: S) -> None:
        """Count `slot` as just used."""
        self._clock += 1
        slot.used = self._clock

    def demote(self, slot: S) -> None:
        """Give `slot` up before all that were not demoted, should room be needed."""
        slot.used -= _DEMOTED

    def activate(self, slot: S) -> None:
        """Move a parked slot to the front."""
        other = self.holders.get(self.active)
        if other is None:
            self._move(slot, self.active)
        elif other is not slot:
            self._swap(slot, other)
        self.active += 1

    def park(self, slot: S) -> None:
        """Move a slot in use behind the front and keep it for reuse."""
        last = self.holders[self.active - 1]
        self.active -= 1
        if not self._free:
            if last is not slot:
                self._swap(slot, last)
        else:
            hole = slot.place
            self._move(slot, self._free[-1])
            if last is not slot:
                self._move(last, hole)
        self.touch(slot)

    def drop(self, slot: S) -> None:
        """Give the place of `slot` back."""
        if slot.place < 0:
            return
        hole, last = slot.place, self.holders.get(self.active - 1)
        del self.holders[hole]
        insort(self._free, hole)
        if hole < self.active:
            self.active -= 1
            if last is not None and last is not slot:
                self._move(last, hole)
        slot.place, slot.length = -1, 0

    def copy(self, source: S, target: S, length: int) -> None:
        """Copy the first `length` positions of one slot into another and set its length."""
        for tensor in (self.keys, self.values):
            tensor[:, target.place, :, :length] = tensor[:, source.place, :, :length]
        target.length = length

    def _settle(self, slot: S, place: int) -> None:
        self.holders[place] = slot
        slot.place = place

    def _move(self, slot: S, place: int) -> None:
        """Take a slot and its content to a free place."""
        for tensor in (self.keys, self.values):
            tensor[:, place, :, : slot.length] = tensor[:, slot.place, :, : slot.length]
        self._free.remove(place)
        insort(self._free, slot.place)
        del self.holders[slot.place]
        self._settle(slot, place)

    def _swap(self, one: S, two: S) -> None:
        """Exchange two slots with their contents."""
        for tensor in (self.keys, self.values):
            saved = tensor[:, one.place, :, : one.length].clone()
            tensor[:, one.place, :, : two.length] = tensor[:, two.place, :, : two.length]
            tensor[:, two.place, :, : one.length] = saved
        first, second = one.place, two.place
        self._settle(one, second)
        self._settle(two, first)

    def _rounded(self, length: int) -> int:
        return -(-length // self._block) * self._block

    def _shortened(self, length: int) -> bool:
        """Whether slots twice as long as anybody needs made way for more of them: one long text came and went."""
        needed = self._rounded(max(length, *(slot.length for slot in self.holders.values()), 1))
        if self.slots == self._wanted or 2 * needed > self.length:
            return False
        self._allocate(needed)
        return bool(self._free)

    def _give_up_oldest(self) -> None:
        oldest = min((slot for slot in self.parked if not slot.pins), key=lambda slot: slot.used, default=None)
        if oldest is None:
            raise PoolFull
        self.drop(oldest)
        self.evictions += 1
        self._given_up(oldest)

    def _allocate(self, length: int) -> None:
        """Slots of the new length, as many as the budget and the device allow; what is held moves over."""
        slots = min(self._wanted, self._budget // max(1, self.shape.position_bytes * length))
        if slots < max(1, self.active):
            raise PoolFull
        shape = (self.shape.layers, slots, self.shape.heads, length, self.shape.dim)
        try:
            keys, values = (_zeros(shape, self.shape.dtype, self.shape.device) for _ in range(2))
        except (torch.OutOfMemoryError, MemoryError):
            # The old slots lie beside the new ones until all has moved: there is room for fewer of them.
            self._budget = self.shape.position_bytes * length * slots // 2
            self._allocate(length)
            return
        while len(self.holders) > slots:
            self._give_up_oldest()
        kept, parked = self.in_use, list(self.parked)
        places = [*range(len(kept)), *range(slots - len(parked), slots)]
        for slot, place in zip([*kept, *parked], places, strict=True):
            for old, new in ((self.keys, keys), (self.values, values)):
                new[:, place, :, : slot.length] = old[:, slot.place, :, : slot.length]
            slot.place = place
        self.holders = {slot.place: slot for slot in [*kept, *parked]}
        self._free = list(range(len(kept), slots - len(parked)))
        self.keys, self.values = keys, values
        self.length, self.slots = length, slots


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros: attention reads masked positions too, where chance bits could outweigh any mask.

    On a CPU the pages come zeroed from the system when first written, so that unused slots cost no memory.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    raw = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(raw).view(dtype).view(shape)
