"""The one attention function of all models: shared keys and values are read once for all candidates.

A step packs one token of every running row and whole prompts into one sequence; all layers but attention
work token by token. Attention tells them apart. The keys and values of a candidate lie in two places: the
*trunk*, which all candidates of a path share, and the *twig*, its own continuation. The candidates of a
trunk fold into its query length: no mask is causal there, since each of them has seen the whole trunk. The two
partial results join by their log-sum-exp (as in Hydragen, arXiv 2402.05099, and flash attention's split over
keys). Cross-attention to pictures is the same with a trunk alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

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
class Span:
    """Tokens `start` to `end` of a segment that see the first `visible` positions of the segment's picture."""

    start: int
    end: int
    visible: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Prompt tokens `start` to `end` of the packed sequence; they fill a trunk from position `offset` on."""

    start: int
    end: int
    trunk: int
    offset: int
    mask: torch.Tensor | None = None
    """(new tokens, all tokens): added to the scores; None when causality alone decides or all is seen."""
    picture: int = -1
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Own:
    """The rows' own slots: row i has slot i of the twigs."""

    positions: torch.Tensor
    """Where each row's new key and value go."""
    length: int
    mask: torch.Tensor | None
    order: torch.Tensor
    """0, 1, 2, ... up to the number of rows."""


@dataclass(frozen=True, slots=True)
class Store:
    """Keys and values of one kind of slots, each (layers, slots, heads, length, dim)."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What attention needs to know of one step: `rows` decode tokens first, then the segments."""

    rows: int
    segments: Sequence[Segment]
    trunks: Store
    twigs: Store
    pictures: Store | None
    own: Own | None
    trunk_share: Shared | None
    picture_share: Shared | None


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


def text_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int, step: Step, scale: float
) -> torch.Tensor:
    """Causal self-attention of one packed step; new keys and values are stored on the way.

    q is (tokens, heads, dim), k and v are (tokens, kv heads, dim); the result is (tokens, heads, dim).
    """
    heads, dim = q.shape[1:]
    kv_heads = k.shape[1]
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    if step.rows and step.own and step.trunk_share:
        rows, own = step.rows, step.own
        step.twigs.keys[layer][own.order, :, own.positions] = k[:rows]
        step.twigs.values[layer][own.order, :, own.positions] = v[:rows]
        query = q[:rows].reshape(rows, kv_heads, heads // kv_heads, dim)
        twig_k = step.twigs.keys[layer, :rows, :, : own.length]
        twig_v = step.twigs.values[layer, :rows, :, : own.length]
        from_twig, twig_lse = attend(query, twig_k, twig_v, own.mask, scale)
        from_trunk, trunk_lse = _shared(query, step.trunks, layer, step.trunk_share, scale)
        weight = torch.sigmoid(trunk_lse - twig_lse.view_as(trunk_lse)).to(q.dtype)[..., None]
        out[:rows] = torch.lerp(from_twig, from_trunk, weight).view(rows, heads, dim)
    for segment in step.segments:
        new = slice(segment.start, segment.end)
        out[new] = _prefill(q[new], k[new], v[new], layer, step, segment, scale)
    return out


def _prefill(  # noqa: PLR0917
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int, step: Step, segment: Segment, scale: float
) -> torch.Tensor:
    """Attention of the new tokens of one prompt over the trunk so far and themselves: (tokens, heads, dim)."""
    upto = segment.offset + len(q)
    keys, values = step.trunks.keys[layer, segment.trunk], step.trunks.values[layer, segment.trunk]
    keys[:, segment.offset : upto] = k.transpose(0, 1)
    values[:, segment.offset : upto] = v.transpose(0, 1)
    out = scaled_dot_product_attention(
        q.transpose(0, 1)[None],
        keys[None, :, :upto],
        values[None, :, :upto],
        attn_mask=segment.mask,
        is_causal=segment.offset == 0 and upto > 1,
        scale=scale,
        enable_gqa=k.shape[1] != q.shape[1],
    )
    return out[0].transpose(0, 1)


def causal_mask(new: int, total: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor | None:
    """(new, total): 0 where new token i sees position j, else minus infinity; None when a mask is not needed."""
    if new in (1, total):
        return None
    return torch.full((new, total), float("-inf"), device=device, dtype=dtype).triu(total - new + 1)


def picture_attention(q: torch.Tensor, layer: int, step: Step, scale: float) -> torch.Tensor:
    """Cross-attention of one packed step to the pictures: q and result are (tokens, heads, dim).

    Tokens without a picture get zeros.
    """
    heads, dim = q.shape[1:]
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    store = step.pictures
    if store is None:
        return out
    kv_heads = store.keys.shape[2]
    share = step.picture_share
    if step.rows and share is not None:
        rows = slice(0, step.rows) if share.rows is None else share.rows
        query = q[rows].reshape(-1, kv_heads, heads // kv_heads, dim)
        out[rows] = _shared(query, store, layer, share, scale)[0].reshape(-1, heads, dim)
    for segment in step.segments:
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


def length_mask(lengths: Sequence[int], device: torch.device) -> torch.Tensor | None:
    """(slots, 1, 1, longest): 0 where a slot has a position, `NEVER` where not; None when all are equal."""
    longest = max(lengths)
    if min(lengths) == longest:
        return None
    filled = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    return torch.zeros(filled.shape).masked_fill_(~filled, NEVER)[:, None, None].to(device)
