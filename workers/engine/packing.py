"""One step as tensors: the running rows first, then the prompts to fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from workers.engine.adapters.base import Adapter, Fill, Packed
from workers.engine.attention import Own, Segment, Shared, Step, Store, causal_mask, length_mask
from workers.engine.jobs import Pending, Picture, Row, Trunk
from workers.engine.pools import Pool, Slot

S = TypeVar("S", bound=Slot)


def pack(
    adapter: Adapter,
    twigs: Pool[Row],
    trunks: Pool[Trunk],
    pictures: Pool[Picture] | None,
    pending: Sequence[Pending],
) -> Packed:
    """The forward pass of one step. Row i is the row in place i of the twigs."""
    rows = twigs.in_use
    device = twigs.shape.device
    axes = adapter.axes
    fills = _fills(adapter, len(rows), pending)
    ids = [np.fromiter((row.tokens[-1] for row in rows), np.int64, len(rows))]
    at = np.fromiter((_position(row) for row in rows), np.int64, len(rows))
    positions = [at if axes == 1 else np.broadcast_to(at, (axes, len(rows)))]
    for fill in fills:
        ids.append(fill.layout.ids[fill.segment.offset :])
        positions.append(fill.layout.positions[..., fill.segment.offset :])
    step = Step(
        rows=len(rows),
        segments=[fill.segment for fill in fills],
        trunks=Store(trunks.keys, trunks.values),
        twigs=Store(twigs.keys, twigs.values),
        pictures=Store(pictures.keys, pictures.values) if pictures else None,
        own=_own(rows, device) if rows else None,
        trunk_share=_share(trunks, [row.trunk for row in rows], [t.length for t in trunks.in_use]) if rows else None,
        picture_share=_picture_share(rows, pictures) if pictures and rows else None,
    )
    return Packed(
        ids=torch.from_numpy(np.concatenate(ids)).to(device),
        positions=torch.from_numpy(np.concatenate(positions, axis=-1)).to(device),
        fills=fills,
        sees=_sees(rows, fills, device) if pictures else None,
        step=step,
    )


def _fills(adapter: Adapter, start: int, pending: Sequence[Pending]) -> list[Fill]:
    """The prompts as segments that follow one another from `start`."""
    fills = []
    for item in pending:
        picture = item.job.picture
        mask = causal_mask(item.tokens, len(item.layout), adapter.text.device, adapter.text.dtype)
        segment = Segment(start, start + item.tokens, item.trunk.place, item.offset, mask)
        if picture:
            spans = adapter.spans(item.layout, segment, picture.seen)
            segment = replace(segment, picture=picture.place, spans=spans)
        fills.append(Fill(layout=item.layout, segment=segment, features=item.features))
        start = segment.end
    return fills


def _position(row: Row) -> int:
    layout = row.trunk.layout
    return (layout.next_position if layout else 0) + row.length


def _own(rows: Sequence[Row], device: torch.device) -> Own:
    lengths = [row.length + 1 for row in rows]
    positions = torch.tensor([length - 1 for length in lengths], device=device)
    return Own(positions, max(lengths), length_mask(lengths, device), torch.arange(len(rows), device=device))


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
        mask=length_mask(lengths, device),
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


def _sees(rows: Sequence[Row], fills: Sequence[Fill], device: torch.device) -> torch.Tensor | None:
    """Per token whether it stands after an image."""
    sees = [float(row.job.picture is not None) for row in rows]
    for fill in fills:
        places = fill.layout.places
        first = places[0][0] if places else len(fill.layout)
        sees += [float(position >= first) for position in range(fill.segment.offset, len(fill.layout))]
    return None if all(sees) else torch.tensor(sees, device=device)
