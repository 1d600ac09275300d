"""Decode steps recorded once as CUDA graphs and replayed: a small batch is bound by launching kernels one by one.

A recording is of so many rows. A step with fewer is filled up with copies of its first row, which write what that row
writes. What differs from step to step, the tokens and where they attend, lies in memory that the recording reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog
import torch

from workers.engine.adapters.base import Adapter, Packed
from workers.engine.packing import Memory, pack
from workers.engine.ragged import Ints, Ragged, RaggedStep

log = structlog.get_logger()

SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 640, 768, 1024)
"""Rows of a recording; a step of more runs as it is."""

Key = tuple[int, ...]
"""Rows, and the longest runs of the kernel's calls."""


Where = tuple[tuple[int, ...], ...]
"""Address and form of every pool."""


@dataclass(slots=True)
class Inputs:
    """Device memory that a recording reads; every step of its size is shipped there, in the same pieces."""

    device: torch.device
    buffers: list[torch.Tensor] = field(default_factory=list)
    _next: int = 0

    def begin(self) -> None:
        """A new step: its first piece goes to the first buffer."""
        self._next = 0

    def ship(self, numbers: Sequence[Ints]) -> Sequence[torch.Tensor]:
        """See `ragged.Ship`."""
        together = torch.from_numpy(np.concatenate(numbers))
        if self._next == len(self.buffers):
            self.buffers.append(torch.empty(together.shape, dtype=together.dtype, device=self.device))
        buffer = self.buffers[self._next]
        self._next += 1
        buffer.copy_(together)
        return torch.split(buffer, [len(part) for part in numbers])


@dataclass(frozen=True, slots=True)
class Recording:
    """A graph and where a replay leaves the logits, until the next one of as many rows."""

    graph: torch.cuda.CUDAGraph
    logits: torch.Tensor


class Graphs:
    """All recordings of an engine. They hold addresses: when a pool has moved, they are made anew."""

    def __init__(self, adapter: Adapter, memory: Memory, ragged: Ragged) -> None:
        self._adapter, self._memory, self._ragged = adapter, memory, ragged
        self._inputs: dict[int, Inputs] = {}
        self._recordings: dict[Key, Recording] = {}
        self._logits: dict[int, torch.Tensor] = {}
        """By rows. Recordings of as many rows leave theirs in the same memory: a vocabulary is large."""
        self._where: Where = ()
        self._pool: Any = None
        self._broken = False

    def decode(self) -> torch.Tensor | None:
        """Logits (rows, vocabulary) of a step of the running rows alone, or None when this one has no recording."""
        rows = self._memory.twigs.in_use
        if self._broken or len(rows) > SIZES[-1] or (self._memory.pictures and any(not r.job.picture for r in rows)):
            return None
        self._forget_if_moved()
        size = SIZES[bisect_left(SIZES, len(rows))]
        inputs = self._inputs.setdefault(size, Inputs(self._adapter.text.device))
        inputs.begin()
        pads = size - len(rows)
        packed = pack(self._adapter, self._memory, (), ragged=self._ragged, ship=inputs.ship, pads=pads)
        key = _key(packed)
        if key not in self._recordings:
            recording = self._record(packed)
            if recording is None:
                return None
            self._recordings[key] = recording
        recording = self._recordings[key]
        recording.graph.replay()
        return recording.logits[: len(rows)]

    def _record(self, packed: Packed) -> Recording | None:
        """Run the step once as it is, so that libraries get ready, then record it."""
        try:
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                found = self._forward(packed)
            torch.cuda.current_stream().wait_stream(side)
            logits = self._logits.setdefault(len(found), torch.empty_like(found))
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                logits.copy_(self._forward(packed))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # A model whose code cannot be recorded runs as well without, only slower.
            self._broken = True
            log.warning("Decode steps are not recorded", action="engine.graph", reason=str(error))
            return None
        return Recording(graph, logits)

    def _forward(self, packed: Packed) -> torch.Tensor:
        return self._adapter.logits(self._adapter.forward(packed))

    def _forget_if_moved(self) -> None:
        where = located(self._memory)
        if where != self._where:
            # With its last recording a pool of graph memory is gone.
            self._recordings.clear()
            self._pool = torch.cuda.graph_pool_handle()
            self._where = where


def located(memory: Memory) -> Where:
    """What of the pools is part of a recording. Slots of another length may come to lie where others did."""
    pools = [pool for pool in (memory.twigs, memory.trunks, memory.pictures) if pool]
    return tuple((pool.keys.data_ptr(), pool.values.data_ptr(), *pool.keys.shape) for pool in pools)


def _key(packed: Packed) -> Key:
    step = packed.step
    if not isinstance(step, RaggedStep):
        raise TypeError("only ragged steps are recorded")
    calls = (step.own, step.shared and step.shared.call, step.seen and step.seen.call)
    return step.rows, *(call.longest if call else 0 for call in calls)
