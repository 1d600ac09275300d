"""Who may enter the batch: memory for pictures, trunks and twigs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch

from workers.engine.adapters.base import Adapter, Features, Layout
from workers.engine.counting import Tally
from workers.engine.jobs import Job, Pending, Picture, Row, Trunk
from workers.engine.pools import Pool, PoolFull
from workers.engine.prefixes import WORTH_WAITING, Source
from workers.engine.preparing import FeatureCache
from workers.engine.sight import Sight
from workers.engine.throttle import Throttle
from workers.engine.trunks import Trunks

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
        self._tally = tally
        self._pictures: dict[tuple[str, ...], Picture] = {}
        self.sight = Sight(adapter, features, limits.vision_batch, tally)
        self.throttle = Throttle(limits.rows, limits.step_tokens, limits.fill_every)
        self.running = 0
        """Candidates that run."""
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

    def admit(self, job: Job, layout: Layout) -> Entry:
        """Give `job` its trunk, and list in `fills` what of it must be computed."""
        source = self._held_trunks.source(layout, job.request.group)
        missing = len(layout) - source.covered
        if self.fills and missing + sum(pending.tokens for pending in self.fills) > self.throttle.step_tokens:
            return Entry.FULL
        if source.trunk and source.trunk.logits is None and source.covered < len(layout):
            if source.covered >= WORTH_WAITING:
                return Entry.LATER
            source = Source()
        features = self.sight.found(layout)
        if features is None and (self.pictures is None or layout.images not in self._pictures):
            return Entry.LATER if self.sight.can_look(job, layout) else Entry.AGAIN
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
        count = min(len(job.waiting), self.throttle.rows - self.running)
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
            "row_limit": float(self.throttle.rows),
            "cache_bytes": float(self.sight.nbytes + sum(pool.held_bytes for pool in pools)),
            "evictions": float(sum(pool.evictions for pool in pools)),
        }

    @property
    def holds(self) -> bool:
        """Whether nobody may enter: memory ran out, or prompts had their turn just now; what runs gets on first."""
        return self.throttle.holds and self.twigs.active > 0

    def recover(self) -> None:
        """A step went well, its prompts included."""
        self.fills, filled = [], bool(self.fills)
        self.throttle.went_well(filled=filled)

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
