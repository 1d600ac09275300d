"""The prompts whose keys and values are held: found again by how they begin, grown in place, forked, given up."""

from __future__ import annotations

from collections.abc import Sequence

from workers.engine.adapters.base import Features, Layout
from workers.engine.counting import Tally
from workers.engine.jobs import Job, Pending, Row, Trunk
from workers.engine.pools import Pool, PoolShape
from workers.engine.prefixes import Prefixes, Source
from workers.engine.protocol import Choose

BLOCK = 64
"""Positions by which the slots of prompts get longer."""


class Trunks:
    """The pool of trunks, each with the kept candidates that go on from it."""

    def __init__(self, shape: PoolShape, twigs: Pool[Row], *, slots: int, budget: int, tally: Tally) -> None:
        """`budget` in bytes; `twigs` holds the candidates."""
        self._twigs = twigs
        self._tally = tally
        self._prefixes = Prefixes()
        self.pool: Pool[Trunk] = Pool(shape, slots=slots, block=BLOCK, budget=budget, given_up=self._forget)

    def source(self, layout: Layout, group: str) -> Source:
        """The best that is there for a prompt."""
        return self._prefixes.best(layout, group)

    def take(self, job: Job, layout: Layout, source: Source, features: Sequence[Features]) -> Pending | None:
        """Give `job` a trunk for `layout` out of what `source` has.

        Returns what of it must be computed, None when all is there. Raises PoolFull; nothing has changed then.
        """
        trunk, pending = source.trunk, None
        if trunk is None or source.trunk_tokens < len(layout) or trunk.length != len(layout):
            pending = self._grown(job, layout, source, features)
            trunk = pending.trunk
        else:
            self._tally.prefix_hits += 1
            job.cached_tokens = len(layout)
        trunk.pins += 1
        self.pool.touch(trunk)
        job.trunk = trunk
        return pending

    def leave(self, job: Job, *, keep: bool) -> None:
        """Let go of the job's trunk. It stays cached if its prompt was computed, unless `keep` is false."""
        trunk, job.trunk = job.trunk, None
        if trunk is None:
            return
        trunk.pins -= 1
        if not trunk.pins and (not keep or trunk.logits is None):
            self._drop(trunk)
        elif isinstance(job.request, Choose):
            # A path that waits for its judge will be continued; what a judge has read will not.
            self.pool.demote(trunk)

    def _grown(self, job: Job, layout: Layout, source: Source, features: Sequence[Features]) -> Pending:
        covered = min(source.covered, len(layout) - 1)
        trunk = self._extended(layout, source) or self._forked(job, layout, source)
        job.cached_tokens = covered
        self._tally.prefix_hits += covered > 0
        self._tally.twig_hits += source.twig is not None
        trunk.layout, trunk.logits, trunk.length = layout, None, len(layout)
        self._prefixes.add(trunk)
        return Pending(job, trunk, layout, covered, features)

    def _extended(self, layout: Layout, source: Source) -> Trunk | None:
        """The source's own slot, when nobody else needs it and the new prompt goes on from all of it."""
        trunk = source.trunk
        if trunk is None or trunk.pins or trunk.rows or source.trunk_tokens < trunk.length:
            return None
        trunk.pins += 1
        try:
            self.pool.reserve(len(layout))
        finally:
            trunk.pins -= 1
        self._graft(source, trunk)
        self._forget(trunk)
        return trunk

    def _forked(self, job: Job, layout: Layout, source: Source) -> Trunk:
        trunk = Trunk(group=job.request.group)
        if source.trunk:
            source.trunk.pins += 1
        try:
            self.pool.claim(trunk, len(layout))
        finally:
            if source.trunk:
                source.trunk.pins -= 1
        if source.trunk:
            try:
                self.pool.copy(source.trunk, trunk, source.trunk_tokens)
                self._graft(source, trunk)
            except RuntimeError:  # nobody knows of the slot yet
                self.pool.drop(trunk)
                raise
        return trunk

    def _graft(self, source: Source, trunk: Trunk) -> None:
        """Copy the kept candidate's keys and values behind those of its trunk."""
        if source.twig is None:
            return
        start, end = source.trunk_tokens, source.covered
        for target, kept in ((self.pool.keys, self._twigs.keys), (self.pool.values, self._twigs.values)):
            target[:, trunk.place, :, start:end] = kept[:, source.twig.place, :, : source.twig_tokens]

    def _drop(self, trunk: Trunk) -> None:
        if trunk.place >= 0:
            self._forget(trunk)
            self.pool.drop(trunk)

    def _forget(self, trunk: Trunk) -> None:
        """What the trunk's place held is no longer to be found."""
        self._prefixes.remove(trunk)
        for twig in trunk.twigs:
            self._twigs.drop(twig)
        trunk.twigs, trunk.logits = [], None
