"""Attention of one step over runs of any length, by the flash kernel that torch carries: half precision, on a GPU.

All rows of a trunk or a picture are one run of queries over one slot, and so is every prompt: the kernel takes all
runs at once, however long each is, so that a step costs the same few launches whatever it holds. A slot is found by
where it begins in its pool, and how much of it counts is a number on the device: a recorded step (`graphs`) can be
replayed when those numbers have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workers.engine.attention import Segment, Store, joined
from workers.engine.jobs import Picture, Row, Trunk
from workers.engine.pools import Pool

Ints = NDArray[np.integer[Any]]
Ship = Callable[[Sequence[Ints]], Sequence[torch.Tensor]]
"""Brings arrays of one type to the device, all in one transfer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the kernel. Tokens of `q` (tokens, heads, dim) stand in runs, each over the front of a slot."""

    bounds: torch.Tensor
    """(runs + 1,) int32: where each run begins."""
    starts: torch.Tensor
    """(runs + 1,) int32: where the slot of each begins among all positions of all slots; the last does not count."""
    lengths: torch.Tensor
    """(runs,) int32: positions of the slot that count."""
    longest: int
    """No run is longer."""
    causal: bool = False
    """Whether the last token of a run sees all that counts, the one before it one less, and so on."""


Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int, Call, float], tuple[torch.Tensor, torch.Tensor]]
"""Attention of q (tokens, heads, dim) over k and v (positions, kv heads, dim), the greatest length that any run could
have, the call and the scale: result like q, and log-sum-exp (heads, tokens)."""


def flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, limit: int, call: Call, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Flash attention 2 as torch carries it."""
    out, lse, *_ = torch.ops.aten._flash_attention_forward(  # noqa: SLF001 - the public function gives no log-sum-exp
        q, k, v, call.bounds, call.starts, call.longest, limit, 0.0, call.causal, False,
        scale=scale, seqused_k=call.lengths,
    )  # fmt: skip
    return out, lse


@dataclass(frozen=True, slots=True)
class Runs:
    """Queries of several repeats each, sorted into runs."""

    order: torch.Tensor
    """(queries,): the token that stands at each place."""
    call: Call


@dataclass(frozen=True, slots=True, kw_only=True)
class RaggedStep:
    """See `attention.Step`."""

    rows: int
    repeats: int
    """Query heads per head of keys and values."""
    kernel: Kernel
    twigs: Store
    trunks: Store
    pictures: Store | None
    places: torch.Tensor
    """(tokens,): the slot where the key and value of each token go, twigs for the rows, trunks for the others."""
    positions: torch.Tensor
    """(tokens,): and the position in it."""
    own: Call | None
    """Rows over their twigs."""
    shared: Runs | None
    """Rows over their trunks."""
    back: torch.Tensor | None
    """(rows,): where each row stands in the order of `shared`."""
    prompts: Call | None
    """Segments over their trunks, themselves included."""
    seen: Runs | None
    """Tokens over the pictures that they see."""

    def text(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int, scale: float) -> torch.Tensor:
        """See `attention.Step`."""
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        rows = self.rows
        if self.own and self.shared and self.back is not None:
            self._keep(self.twigs, layer, slice(0, rows), k, v)
            query = q[:rows].reshape(rows, k.shape[1], self.repeats, -1)
            from_twig, twig_lse = self._folded(query, self.twigs, layer, self.own, scale)
            ordered = query.index_select(0, self.shared.order)
            from_trunk, trunk_lse = self._folded(ordered, self.trunks, layer, self.shared.call, scale)
            from_trunk, trunk_lse = (part.index_select(0, self.back) for part in (from_trunk, trunk_lse))
            out[:rows] = joined(from_twig, twig_lse, from_trunk, trunk_lse).reshape(out[:rows].shape)
        if self.prompts:
            self._keep(self.trunks, layer, slice(rows, None), k, v)
            out[rows:] = self._over(q[rows:].contiguous(), self.trunks, layer, self.prompts, scale)[0]
        return out

    def picture(self, q: torch.Tensor, layer: int, scale: float) -> torch.Tensor:
        """See `attention.Step`."""
        out = torch.zeros_like(q, memory_format=torch.contiguous_format)
        if self.pictures is None or self.seen is None:
            return out
        query = q.index_select(0, self.seen.order).view(-1, self.pictures.keys.shape[2], self.repeats, q.shape[-1])
        found, _ = self._folded(query, self.pictures, layer, self.seen.call, scale)
        return out.index_copy_(0, self.seen.order, found.reshape(-1, *q.shape[1:]))

    def _keep(self, store: Store, layer: int, tokens: slice, k: torch.Tensor, v: torch.Tensor) -> None:
        places, positions = self.places[tokens], self.positions[tokens]
        store.keys[layer][places, :, positions] = k[tokens]
        store.values[layer][places, :, positions] = v[tokens]

    def _folded(
        self, q: torch.Tensor, store: Store, layer: int, call: Call, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention of q (queries, kv heads, repeats, dim): repeats are tokens, so that keys are read once for all."""
        queries, heads, repeats, dim = q.shape
        out, lse = self._over(q.transpose(1, 2).reshape(-1, heads, dim), store, layer, call, scale)
        lse = lse.view(heads, queries, repeats).transpose(0, 1)
        return out.view(queries, repeats, heads, dim).transpose(1, 2), lse

    def _over(
        self, q: torch.Tensor, store: Store, layer: int, call: Call, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        k, v = (_positions(part[layer]) for part in (store.keys, store.values))
        return self.kernel(q, k, v, store.keys.shape[3], call, scale)


class Ragged:
    """Builds such steps."""

    def __init__(self, heads: int, kernel: Kernel = flash) -> None:
        """`heads` is the model's number of query heads."""
        self._heads, self._kernel = heads, kernel

    def __call__(  # noqa: PLR0917
        self,
        rows: Sequence[Row],
        segments: Sequence[Segment],
        twigs: Pool[Row],
        trunks: Pool[Trunk],
        pictures: Pool[Picture] | None,
        ship: Ship,
        pads: int = 0,
    ) -> RaggedStep:
        """The step of `rows`, row i in place i of the twigs, `segments`, and `pads` copies of row 0 behind the rows."""
        repeats = self._heads // twigs.shape.heads
        counted = [*rows, *(list(rows[:1]) * pads)]
        own = _Plan.singles([row.place for row in counted], [row.length + 1 for row in counted])
        shared = _Plan.grouped([row.trunk.place for row in counted], [row.trunk.length for row in counted], pads)
        prompts = _Plan.segments(segments)
        seen = _Plan.seeing(counted, segments, pads) if pictures else _Plan.singles([], [])
        places, positions = _targets(counted, segments)
        back = np.argsort(shared.order)
        plans = (own, shared, prompts, seen)
        numbers = [
            part
            for plan, pool, folded in zip(
                plans, (twigs, trunks, trunks, pictures), (repeats, repeats, 1, repeats), strict=True
            )
            for part in plan.numbers(folded, pool.shape.heads * pool.length if pool else 0)
        ]
        indices = ship([places, positions, back, shared.order, seen.order])
        # The kernel wants its numbers in 32 bits.
        parts = iter(ship([part.astype(np.int32) for part in numbers]))
        calls = [
            plan.call(next(parts), next(parts), next(parts), folded)
            for plan, folded in zip(plans, (repeats, repeats, 1, repeats), strict=True)
        ]
        return RaggedStep(
            rows=len(counted),
            repeats=repeats,
            kernel=self._kernel,
            twigs=Store(twigs.keys, twigs.values),
            trunks=Store(trunks.keys, trunks.values),
            pictures=Store(pictures.keys, pictures.values) if pictures else None,
            places=indices[0],
            positions=indices[1],
            back=indices[2],
            own=calls[0],
            shared=Runs(indices[3], calls[1]) if calls[1] else None,
            prompts=calls[2],
            seen=Runs(indices[4], calls[3]) if calls[3] else None,
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """Runs before they go to the device."""

    order: Ints
    bounds: Ints
    slots: Ints
    lengths: Ints
    causal: bool = False

    @classmethod
    def singles(cls, slots: Sequence[int], lengths: Sequence[int]) -> _Plan:
        """Every query a run of its own."""
        everyone = np.arange(len(slots) + 1)
        return cls(everyone[:-1], everyone, np.array(slots, np.int64), np.array(lengths, np.int64))

    @classmethod
    def grouped(cls, slots: Sequence[int], lengths: Sequence[int], apart: int) -> _Plan:
        """One run per slot; the last `apart` queries are runs of their own."""
        at, long = np.array(slots, np.int64), np.array(lengths, np.int64)
        count = len(at) - apart
        order = np.concatenate([np.argsort(at[:count], kind="stable"), np.arange(count, len(at))])
        first = np.diff(at[order], prepend=-1) != 0
        first[count:] = True
        # As many runs as queries, so that the numbers of a step depend on its rows alone: the runs behind are empty.
        found = np.flatnonzero(first)
        spare = len(at) - len(found)
        bounds = np.concatenate([found, np.full(spare + 1, len(at))])
        runs = np.pad(order[found], (0, spare), constant_values=0)
        return cls(order, bounds, at[runs] if len(at) else at, long[runs] if len(at) else long)

    @classmethod
    def segments(cls, segments: Sequence[Segment]) -> _Plan:
        """Every segment a run."""
        bounds = np.cumsum([0, *(segment.end - segment.start for segment in segments)])
        slots = np.array([segment.trunk for segment in segments], np.int64)
        return cls(bounds[:0], bounds, slots, np.array([s.upto for s in segments], np.int64), causal=True)

    @classmethod
    def seeing(cls, rows: Sequence[Row], segments: Sequence[Segment], pads: int) -> _Plan:
        """One run per picture that rows see, and one per span of a segment."""
        seeing = [(place, row.job.picture) for place, row in enumerate(rows)]
        having = [(place, picture) for place, picture in seeing if picture]
        by_row = cls.grouped(
            [picture.place for _, picture in having],
            [picture.seen.valid[-1] for _, picture in having],
            pads if having and having[-1][0] == len(rows) - 1 else 0,
        )
        tokens = np.array([place for place, _ in having], np.int64)[by_row.order]
        spans = [(segment.picture, span) for segment in segments for span in segment.spans]
        bounds = len(tokens) + np.cumsum([0, *(span.end - span.start for _, span in spans)])
        order = np.concatenate([tokens, *(np.arange(span.start, span.end) for _, span in spans)])
        return cls(
            order.astype(np.int64),
            np.concatenate([by_row.bounds[:-1], bounds]),
            np.concatenate([by_row.slots, np.array([picture for picture, _ in spans], np.int64)]),
            np.concatenate([by_row.lengths, np.array([span.visible for _, span in spans], np.int64)]),
        )

    def numbers(self, folded: int, stride: int) -> tuple[Ints, Ints, Ints]:
        """Bounds, starts and lengths for the kernel: `folded` repeats of a query are so many tokens."""
        return self.bounds * folded, np.append(self.slots * stride, 0), self.lengths

    def call(self, bounds: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, folded: int) -> Call | None:
        """The kernel's call; None where there is nobody to attend."""
        if not len(self.lengths):
            return None
        # Rounded up, so that few different recordings are needed.
        longest = 1 << (int(np.diff(self.bounds).max()) - 1).bit_length()
        return Call(bounds=bounds, starts=starts, lengths=lengths, longest=longest * folded, causal=self.causal)


def _targets(rows: Sequence[Row], segments: Sequence[Segment]) -> tuple[Ints, Ints]:
    """Slot and position where the key and value of every token go."""
    places = [np.fromiter((row.place for row in rows), np.int64, len(rows))]
    positions = [np.fromiter((row.length for row in rows), np.int64, len(rows))]
    for segment in segments:
        places.append(np.full(segment.end - segment.start, segment.trunk))
        positions.append(np.arange(segment.offset, segment.upto))
    return np.concatenate(places), np.concatenate(positions)


def _positions(slots: torch.Tensor) -> torch.Tensor:
    """All positions of all slots (slots, heads, length, dim) one after another, as (positions, heads, dim): a view.

    A slot begins at its place times heads times length. What lies between is read as positions of other heads, which
    no run counts.
    """
    count, heads, length, dim = slots.shape
    return slots.as_strided((((count - 1) * heads + 1) * length, heads, dim), (dim, length * dim, 1))
