"""What runs on the device in one step: the packed forward pass, then the draw of every row's next token."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice

import torch

from workers.engine.adapters.base import Adapter
from workers.engine.admission import Admission
from workers.engine.counting import Tally
from workers.engine.graphs import Graphs
from workers.engine.jobs import Row
from workers.engine.packing import pack
from workers.engine.ragged import Ragged
from workers.engine.sampling import Draw


class Device:
    """Forward passes and draws over the memory of `admission`."""

    def __init__(self, adapter: Adapter, admission: Admission, tally: Tally, ragged: Ragged | None = None) -> None:
        """`ragged` makes the steps where its kernel runs; on a GPU, decode steps are then recorded."""
        self.work = 0.0
        """Work clock: seconds per token, summed over steps. A row's share is what passes while it runs."""
        self.busy_since: float | None = None
        """When the device call in hand began; None between calls. Read by the watchdog."""
        self._adapter, self._admission, self._tally, self._ragged = adapter, admission, tally, ragged
        self._graphs = Graphs(adapter, admission, ragged) if ragged and adapter.text.device.type == "cuda" else None
        self._logits: torch.Tensor | None = None
        self._draw: tuple[Sequence[tuple[Row, int]], Draw] | None = None
        """The rows and their numbers of members that it is for: members only ever leave."""

    def forward(self) -> None:
        """A token of every running row, and the prompts just admitted, in one pass."""
        admission = self._admission
        fills, rows = admission.fills, admission.twigs.in_use
        self._logits = None
        if not rows and not fills:
            return
        admission.twigs.reserve(max((row.length + 1 for row in rows), default=1))
        started = self.busy_since = time.monotonic()
        logits, tokens = self._logits_of(len(rows))
        self._logits = logits[: len(rows)]
        for pending, scores in zip(fills, logits[len(rows) :], strict=True):
            # Its own memory: a view would keep the whole step's logits alive.
            pending.trunk.logits = scores.clone()
        for row in rows:
            row.length += 1
        self._count(time.monotonic() - started, len(rows), tokens)
        admission.recover()

    def _logits_of(self, rows: int) -> tuple[torch.Tensor, int]:
        """Scores of every running row and of the last token of every prompt, and how many tokens passed."""
        admission, adapter = self._admission, self._adapter
        if self._graphs and not admission.fills:
            recorded = self._graphs.decode()
            if recorded is not None:
                return recorded.float(), rows
        packed = pack(adapter, admission, admission.fills, ragged=self._ragged)
        hidden = adapter.forward(packed)
        needed = [*range(rows), *(fill.segment.end - 1 for fill in packed.fills)]
        logits = adapter.logits(hidden if len(needed) == len(hidden) else hidden[needed])
        return logits.float(), len(packed.ids)

    def draw(self, rows: Sequence[Row]) -> list[list[int]]:
        """The next token of every member of every row: from this step's pass, or from the trunk where one starts."""
        started = time.monotonic()
        first = [row.trunk.logits for row in rows if not row.tokens]
        fresh = [scores for scores in first if scores is not None]
        parts = [*([] if self._logits is None else [self._logits]), *([torch.stack(fresh)] if fresh else [])]
        logits = torch.cat(parts) if len(parts) > 1 else parts[0]
        who = [(row, len(row.members)) for row in rows]
        if self._draw is None or self._draw[0] != who:
            samplings = [sampling for row in rows if (sampling := row.job.sampling)]
            seeds = [[seed for _, seed in row.members] for row in rows]
            self._draw = (who, Draw(samplings, seeds, self._adapter.vocabulary, logits.device))
        positions = torch.tensor([len(row.tokens) for row in rows], device=logits.device)
        drawn = iter(self._draw[1](logits, positions).tolist())
        self._tally.sample_seconds += time.monotonic() - started
        return [list(islice(drawn, count)) for _, count in who]

    def forget(self) -> None:
        """A step was lost: nothing of it counts. What it fed to the rows is fed to them again."""
        self._draw = self._logits = None
        self._admission.fills = []
        for row in self._admission.twigs.in_use:
            row.length = max(0, len(row.tokens) - 1)

    def _count(self, seconds: float, rows: int, tokens: int) -> None:
        self.work += seconds / tokens
        for pending in self._admission.fills:
            pending.job.seconds += seconds / tokens * pending.tokens
        if tokens > rows:
            self._tally.prefill_seconds += seconds
        else:
            self._tally.decode_seconds += seconds
        self._tally.steps += 1
        self._tally.row_steps += self._admission.running
        self._tally.merged_steps += self._admission.running - rows
        self._tally.row_places += self._admission.throttle.rows if rows else 0
