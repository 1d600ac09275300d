"""Attention of one step over slots side by side, shorter ones masked: for any device and type of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from workers.engine.attention import Segment, Store, joined
from workers.engine.jobs import Picture, Row, Trunk
from workers.engine.pools import Pool, Slot

S = TypeVar("S", bound=Slot)

NEVER = -1e30
"""Added to scores that must not count; finite, so that a fully masked slot gives no NaN."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Which rows share which slots at the front of a pool, as a grid of (slots, rows of a slot at most)."""

    slots: int
    width: int
    grid: torch.Tensor
    """(slots * width,): the row in each cell of the grid; empty cells repeat any row."""
    cells: torch.Tensor
    """Per row that shares: its cell."""
    rows: torch.Tensor | None
    """Which rows share; None means all."""
    length: int
    mask: torch.Tensor | None
    """(slots, 1, 1, length): added to the scores; None when all slots are equally long."""


@dataclass(frozen=True, slots=True)
class Own:
    """The rows' own slots: row i has slot i of the twigs."""

    positions: torch.Tensor
    """Where each row's new key and value go."""
    length: int
    mask: torch.Tensor | None
    order: torch.Tensor
    """0, 1, 2, ... up to the number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedStep:
    """See `attention.Step`."""

    rows: int
    segments: Sequence[Segment]
    masks: Sequence[torch.Tensor | None]
    """Per segment (new tokens, all tokens): added to the scores; None when causality alone decides or all is seen."""
    trunks: Store
    twigs: Store
    pictures: Store | None
    own: Own | None
    trunk_share: Shared | None
    picture_share: Shared | None

    def text(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int, scale: float) -> torch.Tensor:
        """See `attention.Step`."""
        heads, dim = q.shape[1:]
        kv_heads = k.shape[1]
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        if self.rows and self.own and self.trunk_share:
            rows, own = self.rows, self.own
            self.twigs.keys[layer][own.order, :, own.positions] = k[:rows]
            self.twigs.values[layer][own.order, :, own.positions] = v[:rows]
            query = q[:rows].reshape(rows, kv_heads, heads // kv_heads, dim)
            twig_k = self.twigs.keys[layer, :rows, :, : own.length]
            twig_v = self.twigs.values[layer, :rows, :, : own.length]
            from_twig, twig_lse = attend(query, twig_k, twig_v, own.mask, scale)
            from_trunk, trunk_lse = _shared(query, self.trunks, layer, self.trunk_share, scale)
            out[:rows] = joined(from_twig, twig_lse.view_as(trunk_lse), from_trunk, trunk_lse).view(rows, heads, dim)
        for segment, mask in zip(self.segments, self.masks, strict=True):
            new = slice(segment.start, segment.end)
            out[new] = self._prefill(q[new], k[new], v[new], layer, segment, mask, scale)
        return out

    def _prefill(  # noqa: PLR0917
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: int,
        segment: Segment,
        mask: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        """Attention of the new tokens of one prompt over the trunk so far and themselves: (tokens, heads, dim)."""
        upto = segment.upto
        keys, values = self.trunks.keys[layer, segment.trunk], self.trunks.values[layer, segment.trunk]
        keys[:, segment.offset : upto] = k.transpose(0, 1)
        values[:, segment.offset : upto] = v.transpose(0, 1)
        out = scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            keys[None, :, :upto],
            values[None, :, :upto],
            attn_mask=mask,
            is_causal=segment.offset == 0 and upto > 1,
            scale=scale,
            enable_gqa=k.shape[1] != q.shape[1],
        )
        return out[0].transpose(0, 1)

    def picture(self, q: torch.Tensor, layer: int, scale: float) -> torch.Tensor:
        """See `attention.Step`."""
        heads, dim = q.shape[1:]
        out = torch.zeros_like(q, memory_format=torch.contiguous_format)
        store = self.pictures
        if store is None:
            return out
        kv_heads = store.keys.shape[2]
        share = self.picture_share
        if self.rows and share is not None:
            rows = slice(0, self.rows) if share.rows is None else share.rows
            query = q[rows].reshape(-1, kv_heads, heads // kv_heads, dim)
            out[rows] = _shared(query, store, layer, share, scale)[0].reshape(-1, heads, dim)
        for segment in self.segments:
            for span in segment.spans:
                seen = scaled_dot_product_attention(
                    q[span.start : span.end].transpose(0, 1)[None],
                    store.keys[layer, segment.picture, None, :, : span.visible],
                    store.values[layer, segment.picture, None, :, : span.visible],
                    scale=scale,
                    enable_gqa=kv_heads != heads,
                )
                out[span.start : span.end] = seen[0].transpose(0, 1)
        return out


def padded(
    rows: Sequence[Row],
    segments: Sequence[Segment],
    twigs: Pool[Row],
    trunks: Pool[Trunk],
    pictures: Pool[Picture] | None,
) -> PaddedStep:
    """The step of `rows`, row i in place i of the twigs, and `segments`."""
    shape = twigs.shape
    return PaddedStep(
        rows=len(rows),
        segments=segments,
        masks=[_causal_mask(segment, shape.device, shape.dtype) for segment in segments],
        trunks=Store(trunks.keys, trunks.values),
        twigs=Store(twigs.keys, twigs.values),
        pictures=Store(pictures.keys, pictures.values) if pictures else None,
        own=_own(rows, shape.device) if rows else None,
        trunk_share=_share(trunks, [row.trunk for row in rows], [t.length for t in trunks.in_use]) if rows else None,
        picture_share=_picture_share(rows, pictures) if pictures and rows else None,
    )


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of q (slots, heads, queries, dim) over k, v (slots, heads, keys, dim): result and log-sum-exp."""
    if q.device.type == "cpu":
        wide = None if mask is None else mask.to(q.dtype).expand(-1, -1, q.shape[2], -1)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=wide, scale=scale)  # type: ignore[no-any-return] # noqa: SLF001
    scores = torch.matmul(q * scale, k.transpose(2, 3)).float()
    if mask is not None:
        scores += mask
    lse = scores.logsumexp(-1)
    return torch.matmul((scores - lse[..., None]).exp().to(v.dtype), v), lse


def _shared(
    q: torch.Tensor, store: Store, layer: int, share: Shared, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows q (rows, kv heads, repeats, dim) over the slots they share: results and log-sum-exps per row."""
    heads, repeats, dim = q.shape[1:]
    grid = q.index_select(0, share.grid).view(share.slots, share.width, heads, repeats, dim).transpose(1, 2)
    k = store.keys[layer, : share.slots, :, : share.length]
    v = store.values[layer, : share.slots, :, : share.length]
    folded = grid.reshape(share.slots, heads, share.width * repeats, dim)
    out, lse = attend(folded, k, v, share.mask, scale)
    out = out.view(share.slots, heads, share.width, repeats, dim).transpose(1, 2).reshape(-1, heads, repeats, dim)
    lse = lse.reshape(share.slots, heads, share.width, repeats).transpose(1, 2).reshape(-1, heads, repeats)
    return out.index_select(0, share.cells), lse.index_select(0, share.cells)


def _causal_mask(segment: Segment, device: torch.device, dtype: torch.dtype) -> torch.Tensor | None:
    new, total = segment.end - segment.start, segment.upto
    if new in (1, total):
        return None
    return torch.full((new, total), float("-inf"), device=device, dtype=dtype).triu(total - new + 1)


def _own(rows: Sequence[Row], device: torch.device) -> Own:
    lengths = [row.length + 1 for row in rows]
    positions = torch.tensor([length - 1 for length in lengths], device=device)
    return Own(positions, max(lengths), _length_mask(lengths, device), torch.arange(len(rows), device=device))


def _share(pool: Pool[S], slots: Sequence[S], lengths: Sequence[int], rows: torch.Tensor | None = None) -> Shared:
    """Rows with these `slots` (all at the front of `pool`), whose front slots are `lengths` long."""
    ranks = [0] * pool.active
    cells = []
    for slot in slots:
        cells.append((slot.place, ranks[slot.place]))
        ranks[slot.place] += 1
    width = max(ranks)
    at = np.array([place * width + rank for place, rank in cells])
    grid = np.zeros(pool.active * width, dtype=np.int64)
    grid[at] = np.arange(len(at))
    device = pool.shape.device
    return Shared(
        slots=pool.active,
        width=width,
        grid=torch.from_numpy(grid).to(device),
        cells=torch.from_numpy(at).to(device),
        rows=rows,
        length=max(lengths),
        mask=_length_mask(lengths, device),
    )


def _picture_share(rows: Sequence[Row], pictures: Pool[Picture]) -> Shared | None:
    seeing = [(place, row.job.picture) for place, row in enumerate(rows)]
    slots = [picture for _, picture in seeing if picture]
    if not slots:
        return None
    some = None
    if len(slots) < len(rows):
        some = torch.tensor([place for place, picture in seeing if picture], device=pictures.shape.device)
    return _share(pictures, slots, [picture.seen.valid[-1] for picture in pictures.in_use], some)


def _length_mask(lengths: Sequence[int], device: torch.device) -> torch.Tensor | None:
    """(slots, 1, 1, longest): 0 where a slot has a position, `NEVER` where not; None when all are equal."""
    longest = max(lengths)
    if min(lengths) == longest:
        return None
    filled = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    return torch.zeros(filled.shape).masked_fill_(~filled, NEVER)[:, None, None].to(device)
