"""What the loop works on: a job per request, the trunk of its prompt, a row per running candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from reasoning.errors import StagebeamError
from reasoning.records import Candidate
from workers.engine.adapters.base import Features, ImageInput, Layout, PictureSeen
from workers.engine.pools import Slot
from workers.engine.protocol import Choose, Generate, Sampling


@dataclass(slots=True, eq=False)
class Picture(Slot):
    """Cross-attention keys and values of the images of a query."""

    images: tuple[str, ...] = ()
    seen: PictureSeen = field(default_factory=lambda: PictureSeen((), 0))
    rows: int = 0
    """Running rows that read it."""


@dataclass(slots=True, eq=False)
class Trunk(Slot):
    """Keys and values of a prompt and the path so far, shared by all candidates that continue it."""

    layout: Layout | None = None
    group: str = ""
    logits: torch.Tensor | None = None
    """(vocabulary,) after the last position; None until computed."""
    rows: int = 0
    """Running rows that continue it."""
    twigs: list[Row] = field(default_factory=list)
    """Finished candidates whose keys and values are kept for the next stage."""


@dataclass(slots=True, eq=False)
class Row(Slot):
    """Candidates that have drawn the same tokens so far, after the trunk: one row until they part.

    `length` counts the tokens already fed to the model.
    """

    job: Job = field(kw_only=True)
    trunk: Trunk = field(kw_only=True)
    members: list[tuple[int, int]] = field(default_factory=list)
    """Index and seed of each candidate."""
    limit: int = 0
    """New tokens at most."""
    work: float = 0.0
    """The loop's work clock when it started."""
    tokens: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Job:
    """One request in hand."""

    request: Generate | Choose
    future: Future[Any]
    layout: Layout | None = None
    inputs: Mapping[str, ImageInput] = field(default_factory=dict)
    """Preprocessed images that the vision tower has not seen yet, by content hash."""
    label_ids: list[list[int]] = field(default_factory=list)
    enders: frozenset[int] = frozenset()
    error: StagebeamError | None = None
    """Why it could not be prepared."""
    picture: Picture | None = None
    trunk: Trunk | None = None
    waiting: list[tuple[int, int]] = field(default_factory=list)
    """Index and seed of candidates not started yet."""
    rows: list[Row] = field(default_factory=list)
    done: dict[int, Candidate] = field(default_factory=dict)
    cached_tokens: int = 0
    vision_calls: int = 0
    seconds: float = 0.0

    @property
    def begins(self) -> bool:
        """Whether its prompt, or the first token of a candidate that runs, is still to come."""
        return self.trunk is None or self.trunk.logits is None or any(not row.tokens for row in self.rows)

    @property
    def sampling(self) -> Sampling | None:
        """How its candidates are drawn; None for a choice."""
        return self.request.sampling if isinstance(self.request, Generate) else None


@dataclass(frozen=True, slots=True)
class Pending:
    """A prompt whose positions from `offset` on are computed in this step."""

    job: Job
    trunk: Trunk
    layout: Layout
    offset: int
    features: Sequence[Features] = ()

    @property
    def tokens(self) -> int:
        return len(self.layout) - self.offset
