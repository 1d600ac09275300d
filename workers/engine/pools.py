"""Key and value memory in slots of equal length, those in use at the front.

A decode step reads the slots of all running rows as one tensor view, without gathering. For this the slots in
use stay together at the front: whoever leaves changes places with the last one in use, which costs one copy of
a single sequence. Behind the front lie parked slots, kept for reuse and given up oldest first.
"""

from __future__ import annotations

import math
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
        self, shape: PoolShape, *, slots: int, length: int, budget: int, given_up: Callable[[S], None] = lambda _: None
    ) -> None:
        """At most `slots` slots and `budget` bytes; `given_up` hears of parked slots that lost their place."""
        self.shape = shape
        self._wanted = slots
        self._budget = budget
        self._given_up = given_up
        self._clock = 0
        self.holders: list[S] = []
        """By place: first those in use, then those parked."""
        self.active = 0
        """How many are in use."""
        self.length = 0
        self.slots = 0
        self.evictions = 0
        self.keys = self.values = torch.empty(0)
        self._allocate(length)

    @property
    def in_use(self) -> list[S]:
        """The slots in use, by place."""
        return self.holders[: self.active]

    @property
    def parked(self) -> Iterator[S]:
        """The slots kept for reuse."""
        return iter(self.holders[self.active :])

    @property
    def held_bytes(self) -> int:
        """Bytes of keys and values that slots hold now."""
        return self.shape.position_bytes * sum(holder.length for holder in self.holders)

    def claim(self, slot: S, length: int) -> None:
        """Give `slot` a parked place with room for `length` positions.

        Raises:
            PoolFull: nothing can be given up for it.
        """
        self.reserve(length)
        if len(self.holders) >= self.slots:
            self._give_up_oldest()
        slot.place = len(self.holders)
        slot.length = 0
        self.holders.append(slot)
        self.touch(slot)

    def reserve(self, length: int) -> None:
        """Make every slot hold `length` positions; slots get longer by doubling. Raises PoolFull."""
        if length > self.length:
            longer = self.length
            while longer < length:
                longer *= 2
            self._allocate(longer)

    def touch(self, slot: S) -> None:
        """Count `slot` as just used."""
        self._clock += 1
        slot.used = self._clock

    def activate(self, slot: S) -> None:
        """Move a parked slot to the front."""
        self._swap(slot.place, self.active)
        self.active += 1

    def park(self, slot: S) -> None:
        """Move a slot in use behind the front and keep it for reuse."""
        self.active -= 1
        self._swap(slot.place, self.active)
        self.touch(slot)

    def drop(self, slot: S) -> None:
        """Give the place of `slot` back."""
        if slot.place < 0:
            return
        if slot.place < self.active:
            self.park(slot)
        last = self.holders[-1]
        self._swap(slot.place, last.place, keep_second=False)
        self.holders.pop()
        slot.place, slot.length = -1, 0

    def copy(self, source: S, target: S, length: int) -> None:
        """Copy the first `length` positions of one slot into another and set its length."""
        for tensor in (self.keys, self.values):
            tensor[:, target.place, :, :length] = tensor[:, source.place, :, :length]
        target.length = length

    def _swap(self, first: int, second: int, *, keep_second: bool = True) -> None:
        """Exchange two places; the content of a `first` that is going away need not be kept."""
        if first == second:
            return
        a, b = self.holders[first], self.holders[second]
        for tensor in (self.keys, self.values):
            saved = tensor[:, first, :, : a.length].clone() if keep_second else None
            tensor[:, first, :, : b.length] = tensor[:, second, :, : b.length]
            if saved is not None:
                tensor[:, second, :, : a.length] = saved
        self.holders[first], self.holders[second] = b, a
        a.place, b.place = second, first

    def _give_up_oldest(self) -> None:
        oldest = min((slot for slot in self.parked if not slot.pins), key=lambda slot: slot.used, default=None)
        if oldest is None:
            raise PoolFull
        self.drop(oldest)
        self.evictions += 1
        self._given_up(oldest)

    def _allocate(self, length: int) -> None:
        """Slots of the new length, as many as the budget allows; what is held moves over."""
        slots = min(self._wanted, self._budget // max(1, self.shape.position_bytes * length))
        if slots < max(1, self.active):
            raise PoolFull
        while len(self.holders) > slots:
            self._give_up_oldest()
        shape = (self.shape.layers, slots, self.shape.heads, length, self.shape.dim)
        fresh = [_zeros(shape, self.shape.dtype, self.shape.device) for _ in range(2)]
        if self.holders:
            held = max(holder.length for holder in self.holders)
            for old, new in zip((self.keys, self.values), fresh, strict=True):
                new[:, : len(self.holders), :, :held] = old[:, : len(self.holders), :, :held]
        self.keys, self.values = fresh
        self.length, self.slots = length, slots


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros: attention reads masked positions too, where chance bits could outweigh any mask.

    On a CPU the pages come zeroed from the system when first written, so that unused slots cost no memory.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    raw = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(raw).view(dtype).view(shape)
