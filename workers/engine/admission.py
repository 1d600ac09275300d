"""Who may enter the batch: memory for pictures, trunks and twigs, and how much runs at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch

from workers.engine.adapters.base import Adapter, Features, ImageInput, Layout
from workers.engine.counting import Tally
from workers.engine.jobs import Job, Pending, Picture, Row, Trunk
from workers.engine.pools import Pool, PoolFull
from workers.engine.prefixes import WORTH_WAITING, Source
from workers.engine.preparing import FeatureCache
from workers.engine.trunks import Trunks

RECOVER_STEPS = 128
"""Steps after which more rows are tried again, once memory ran out; doubled each time it runs out."""
TWIG_BLOCK = 32
"""Positions by which the slots of candidates get longer. Pictures have few sizes: their slots fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may be in hand at once."""

    rows: int
    """Running candidates; those that have drawn the same so far take one place in the batch together."""
    trunks: int
    """Prompts whose keys and values are held, kept ones included."""
    pictures: int
    """Image sets whose cross-attention keys and values are held, kept ones included."""
    trunk_bytes: int
    twig_bytes: int
    picture_bytes: int
    feature_bytes: int
    step_tokens: int
    """Prompt tokens computed in one step, unless a single prompt is longer."""
    vision_batch: int
    """Images in one pass of the vision tower."""
    threads: int
    fill_every: int = 1
    """Steps from one with prompts to the next while rows run: where steps of rows alone are much the faster."""


class Entry(Enum):
    """What became of a job that asked to enter the batch."""

    ADMITTED = auto()
    LATER = auto()
    """Not in this step: something it needs is about to be computed."""
    FULL = auto()
    """There is no room for anybody else in this step."""
    AGAIN = auto()
    """Its image features were given up meanwhile: it must be prepared again."""


class Admission:
    """All device memory of an engine and the rules for it."""

    def __init__(self, adapter: Adapter, features: FeatureCache, limits: Limits, tally: Tally) -> None:
        self._adapter = adapter
        self._features = features
        self._limits = limits
        self._tally = tally
        self._pictures: dict[tuple[str, ...], Picture] = {}
        self.row_limit = limits.rows
        """Lowered when memory ran out."""
        self.running = 0
        """Candidates that run."""
        self._step_tokens = limits.step_tokens
        self._patience, self._calm, self._held = RECOVER_STEPS, 0, False
        self._since_fill = limits.fill_every
        self.fills: list[Pending] = []
        self.twigs: Pool[Row] = Pool(
            adapter.text, slots=2 * limits.rows, block=TWIG_BLOCK, budget=limits.twig_bytes, given_up=_forget_twig
        )
        self._held_trunks = Trunks(
            adapter.text, self.twigs, slots=limits.trunks, budget=limits.trunk_bytes, tally=tally
        )
        self.trunks: Pool[Trunk] = self._held_trunks.pool
        self.pictures: Pool[Picture] | None = None
        if adapter.pictures:
            self.pictures = Pool(
                adapter.pictures,
                slots=limits.pictures,
                block=1,
                budget=limits.picture_bytes,
                given_up=self._forget_picture,
            )

    def look(self, jobs: Sequence[Job]) -> dict[str, Exception]:
        """Run the vision tower once over the distinct images that the first of `jobs` wait for.

        Returns the images it could not take, with the reason: one that fails must not spoil the others.
        """
        # What the last look found could enter the batch meanwhile. Whoever waits longest keeps its images, however
        # little room there is: else two that wait could drive each other's out for ever.
        first = jobs[0].layout if jobs else None
        self._features.trim(keep=first.images if first else ())
        wanted: dict[str, tuple[Job, ImageInput]] = {}
        for job in jobs:
            for image, item in job.inputs.items():
                if image not in wanted and self._features.get(image) is None:
                    wanted[image] = (job, item)
            if len(wanted) >= self._limits.vision_batch:
                break
        if not wanted:
            return {}
        try:
            self._see(wanted)
        except RuntimeError as error:
            if len(wanted) == 1:
                return dict.fromkeys(wanted, error)
            return self._look_singly(wanted)
        return {}

    def admit(self, job: Job, layout: Layout) -> Entry:
        """Give `job` its trunk, and list in `fills` what of it must be computed."""
        source = self._held_trunks.source(layout, job.request.group)
        missing = len(layout) - source.covered
        if self.fills and missing + sum(pending.tokens for pending in self.fills) > self._step_tokens:
            return Entry.FULL
        if source.trunk and source.trunk.logits is None and source.covered < len(layout):
            if source.covered >= WORTH_WAITING:
                return Entry.LATER
            source = Source()
        features = self._found(layout)
        if features is None and (self.pictures is None or layout.images not in self._pictures):
            return Entry.LATER if self._can_look(job, layout) else Entry.AGAIN
        try:
            if self.pictures and layout.images:
                job.picture = self._picture(self.pictures, layout, features or [])
                job.picture.pins += 1
            pending = self._held_trunks.take(job, layout, source, features or [])
        except (PoolFull, torch.OutOfMemoryError):
            self.put_back(job)
            return Entry.FULL
        if pending:
            self.fills.append(pending)
        job.inputs = {}
        return Entry.ADMITTED

    def start_rows(self, job: Job, work: float) -> None:
        """Start the waiting candidates of a job whose trunk is computed, as far as there is room."""
        trunk, sampling = job.trunk, job.sampling
        if trunk is None or sampling is None:
            return
        count = min(len(job.waiting), self.row_limit - self.running)
        if count <= 0:
            return
        room = self._adapter.context - trunk.length
        row = Row(job=job, trunk=trunk, limit=min(sampling.max_tokens, room), work=work)
        try:
            self.twigs.claim(row, 1)
        except PoolFull:
            return
        row.members, job.waiting = job.waiting[:count], job.waiting[count:]
        self.running += count
        self._activate(row)

    def part(self, row: Row, drawn: Sequence[int], work: float) -> list[tuple[Row, int]]:
        """A row for each different token that the members of `row` drew, with that token.

        The first keeps the row. Members for whom there is no room start again later, with the same result.
        """
        groups: dict[int, list[tuple[int, int]]] = {}
        for member, token in zip(row.members, drawn, strict=True):
            groups.setdefault(token, []).append(member)
        (first, row.members), *others = groups.items()
        parts = [(row, first)]
        for token, members in others:
            fork = Row(job=row.job, trunk=row.trunk, limit=row.limit, work=work, members=members)
            try:
                self.twigs.claim(fork, max(1, row.length))
            except PoolFull:
                self._tally.preemptions += len(members)
                self._tally.discarded_tokens += len(row.tokens) * len(members)
                self.running -= len(members)
                row.job.waiting = members + row.job.waiting
                continue
            fork.tokens = list(row.tokens)
            self.twigs.copy(row, fork, row.length)
            self._activate(fork)
            parts.append((fork, token))
        return parts

    def end_row(self, row: Row, *, keep: bool) -> None:
        """Take a row out of the batch; its keys and values stay for the next stage if `keep`."""
        self.twigs.park(row)
        if keep and row.length:
            row.trunk.twigs.append(row)
        else:
            self.twigs.drop(row)
        row.job.rows.remove(row)
        self.running -= len(row.members)
        row.trunk.rows -= 1
        if not row.trunk.rows:
            self.trunks.park(row.trunk)
        picture = row.job.picture
        if picture and self.pictures:
            picture.rows -= 1
            if not picture.rows:
                self.pictures.park(picture)

    def release(self, job: Job, *, keep: bool = True) -> None:
        """Free what `job` holds. What it computed stays cached, unless `keep` is false."""
        for row in list(job.rows):
            self._tally.discarded_tokens += len(row.tokens) * len(row.members)
            self.end_row(row, keep=False)
        if job.picture:
            job.picture.pins -= 1
            job.picture = None
        self._held_trunks.leave(job, keep=keep)

    def put_back(self, job: Job) -> None:
        """Undo the admission of `job`; candidates under way start again later, with the same result."""
        again = [member for row in job.rows for member in row.members]
        self._tally.preemptions += len(again)
        self.release(job, keep=False)
        job.waiting = again + job.waiting
        self.fills = [pending for pending in self.fills if pending.job is not job]

    def held(self) -> dict[str, float]:
        """Rows, bytes and evictions by name, for the counters."""
        pools: list[Pool[Any]] = [pool for pool in (self.trunks, self.twigs, self.pictures) if pool]
        return {
            "rows": float(self.running),
            "row_limit": float(self.row_limit),
            "cache_bytes": float(self._features.nbytes + sum(pool.held_bytes for pool in pools)),
            "evictions": float(sum(pool.evictions for pool in pools)),
        }

    @property
    def holds(self) -> bool:
        """Whether nobody may enter: memory ran out, or prompts had their turn just now; what runs gets on first."""
        return (self._held or self._since_fill < self._limits.fill_every) and self.twigs.active > 0

    def halve(self) -> None:
        """Let less run at once for a while, and for longer each time: what runs must get to its end."""
        self.row_limit = max(1, min(self.row_limit, self.running) // 2)
        self._step_tokens = max(1, self._step_tokens // 2)
        self._patience, self._calm, self._held = 2 * self._patience, 0, True

    def recover(self) -> None:
        """Count a step that went well, its prompts included; after many of them let more run again."""
        self.fills, filled = [], bool(self.fills)
        self._since_fill = 1 if filled else self._since_fill + 1
        self._calm, self._held = self._calm + 1, False
        if self._calm >= self._patience:
            self.row_limit = min(self._limits.rows, 2 * self.row_limit)
            self._step_tokens = min(self._limits.step_tokens, 2 * self._step_tokens)
            self._calm = 0

    def _see(self, wanted: Mapping[str, tuple[Job, ImageInput]]) -> None:
        found = self._adapter.see([item for _, item in wanted.values()])
        for (image, (job, item)), features in zip(wanted.items(), found, strict=True):
            self._features.put(image, features, item.stub)
            job.vision_calls += 1
        self._tally.vision_calls += len(wanted)
        self._tally.vision_batches += 1

    def _look_singly(self, wanted: Mapping[str, tuple[Job, ImageInput]]) -> dict[str, Exception]:
        failed: dict[str, Exception] = {}
        for image, item in wanted.items():
            try:
                self._see({image: item})
            except RuntimeError as error:
                failed[image] = error
        return failed

    def _can_look(self, job: Job, layout: Layout) -> bool:
        """Whether the job brought the pixels of all its images that have no features."""
        return all(image in job.inputs or self._features.get(image) for image in layout.images)

    def _found(self, layout: Layout) -> list[Features] | None:
        """The features of all images, or None when one of them is not there."""
        found = [self._features.get(image) for image in layout.images]
        present = [features for features in found if features is not None]
        return present if len(present) == len(found) else None

    def _picture(self, pool: Pool[Picture], layout: Layout, features: Sequence[Features]) -> Picture:
        """The picture slot of the images of a prompt."""
        known = self._pictures.get(layout.images)
        if known:
            pool.touch(known)
            self._tally.picture_hits += 1
            return known
        picture = Picture(images=layout.images)
        pool.claim(picture, sum(len(item.values) for item in features))
        try:
            picture.seen = self._adapter.picture(features, pool.keys[:, picture.place], pool.values[:, picture.place])
        except RuntimeError:
            pool.drop(picture)
            raise
        picture.length = picture.seen.all
        self._pictures[layout.images] = picture
        return picture

    def _activate(self, row: Row) -> None:
        if not row.trunk.rows:
            self.trunks.activate(row.trunk)
        row.trunk.rows += 1
        picture = row.job.picture
        if picture and self.pictures:
            if not picture.rows:
                self.pictures.activate(picture)
            picture.rows += 1
        self.twigs.activate(row)
        row.job.rows.append(row)

    def _forget_picture(self, picture: Picture) -> None:
        del self._pictures[picture.images]


def _forget_twig(row: Row) -> None:
    row.trunk.twigs.remove(row)
