"""One step as tensors: the running rows first, then the prompts to fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from workers.engine.adapters.base import Adapter, Fill, Packed
from workers.engine.attention import Segment, Step
from workers.engine.jobs import Pending, Picture, Row, Trunk
from workers.engine.padded import padded
from workers.engine.pools import Pool
from workers.engine.ragged import Ints, Ragged, Ship


class Memory(Protocol):
    """All keys and values of an engine."""

    twigs: Pool[Row]
    trunks: Pool[Trunk]
    pictures: Pool[Picture] | None


def ragged_for(adapter: Adapter) -> Ragged | None:
    """The flash kernel's steps where it runs: half precision on a GPU of its generation; else None."""
    shape = adapter.text
    # What torch carries for AMD counts no part of a slot.
    if shape.device.type != "cuda" or torch.version.hip or shape.dtype not in {torch.float16, torch.bfloat16}:
        return None
    fits = torch.cuda.get_device_capability(shape.device) >= (8, 0) and shape.dim % 8 == 0 and shape.dim <= 256
    return Ragged(adapter.heads) if fits else None


def pack(
    adapter: Adapter,
    memory: Memory,
    pending: Sequence[Pending],
    *,
    ragged: Ragged | None = None,
    ship: Ship | None = None,
    pads: int = 0,
) -> Packed:
    """The forward pass of one step. Row i is the row in place i of the twigs.

    With `ragged` attention is of that kind, and `pads` copies of row 0 stand behind the rows; `ship` takes numbers
    to the device.
    """
    rows = memory.twigs.in_use
    ship = ship or _shipper(memory.twigs.shape.device)
    fills = _fills(adapter, len(rows) + pads, pending)
    counted = [*rows, *(list(rows[:1]) * pads)]
    at = np.fromiter((_position(row) for row in counted), np.int64, len(counted))
    ids = [np.fromiter((row.tokens[-1] for row in counted), np.int64, len(counted))]
    positions = [at if adapter.axes == 1 else np.broadcast_to(at, (adapter.axes, len(counted)))]
    for fill in fills:
        ids.append(fill.layout.ids[fill.segment.offset :])
        positions.append(fill.layout.positions[..., fill.segment.offset :])
    where = np.concatenate(positions, axis=-1)
    segments = [fill.segment for fill in fills]
    tokens, places = ship([np.concatenate(ids), where.reshape(-1)])
    pools = (memory.twigs, memory.trunks, memory.pictures)
    step: Step = ragged(rows, segments, *pools, ship, pads) if ragged else padded(rows, segments, *pools)
    return Packed(
        ids=tokens,
        positions=places.view(where.shape),
        fills=fills,
        sees=_sees(rows, fills, memory.twigs.shape.device) if memory.pictures else None,
        step=step,
    )


def _shipper(device: torch.device) -> Ship:
    def ship(numbers: Sequence[Ints]) -> Sequence[torch.Tensor]:
        together = torch.from_numpy(np.concatenate(numbers)).to(device)
        return torch.split(together, [len(part) for part in numbers])

    return ship


def _fills(adapter: Adapter, start: int, pending: Sequence[Pending]) -> list[Fill]:
    """The prompts as segments that follow one another from `start`."""
    fills = []
    for item in pending:
        picture = item.job.picture
        segment = Segment(start, start + item.tokens, item.trunk.place, item.offset)
        if picture:
            spans = adapter.spans(item.layout, segment, picture.seen)
            segment = replace(segment, picture=picture.place, spans=spans)
        fills.append(Fill(layout=item.layout, segment=segment, features=item.features))
        start = segment.end
    return fills


def _position(row: Row) -> int:
    layout = row.trunk.layout
    return (layout.next_position if layout else 0) + row.length


def _sees(rows: Sequence[Row], fills: Sequence[Fill], device: torch.device) -> torch.Tensor | None:
    """Per token whether it stands after an image."""
    sees = [float(row.job.picture is not None) for row in rows]
    for fill in fills:
        places = fill.layout.places
        first = places[0][0] if places else len(fill.layout)
        sees += [float(position >= first) for position in range(fill.segment.offset, len(fill.layout))]
    return None if all(sees) else torch.tensor(sees, device=device)
