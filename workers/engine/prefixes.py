"""Where the keys and values of a prompt can come from: a trunk, part of one, or a trunk and a kept candidate."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.engine.adapters.base import Layout
from workers.engine.jobs import Row, Trunk

WORTH_WAITING = 16
"""Shared tokens for which a prompt waits one step, when another prompt is about to compute them."""


@dataclass(frozen=True, slots=True)
class Source:
    """The best that is there for a prompt: the first `trunk_tokens` of `trunk`, then `twig_tokens` of `twig`."""

    trunk: Trunk | None = None
    trunk_tokens: int = 0
    twig: Row | None = None
    twig_tokens: int = 0

    @property
    def covered(self) -> int:
        """Prompt tokens that need not be computed."""
        return self.trunk_tokens + self.twig_tokens


class Prefixes:
    """All trunks that have a place, by group. The newest one of all is looked at too: prompts begin alike."""

    def __init__(self) -> None:
        self._groups: defaultdict[str, list[Trunk]] = defaultdict(list)
        self._newest: Trunk | None = None

    def add(self, trunk: Trunk) -> None:
        self._groups[trunk.group].append(trunk)
        self._newest = trunk

    def remove(self, trunk: Trunk) -> None:
        members = self._groups[trunk.group]
        members.remove(trunk)
        if not members:
            del self._groups[trunk.group]
        if self._newest is trunk:
            self._newest = None

    def best(self, layout: Layout, group: str) -> Source:
        """The source that covers most of `layout`; a trunk that equals it comes before all others."""
        trunks = list(self._groups.get(group, ())[-16:])
        if self._newest and self._newest not in trunks:
            trunks.append(self._newest)
        found = Source()
        for trunk in trunks:
            source = _cover(layout, trunk)
            if source.covered > found.covered or (source.covered == found.covered and _whole(source, layout)):
                found = source
        return found


def _whole(source: Source, layout: Layout) -> bool:
    return source.trunk is not None and source.trunk_tokens == len(layout) == source.trunk.length


def _cover(layout: Layout, trunk: Trunk) -> Source:
    keys = trunk.layout.keys if trunk.layout else layout.keys[:0]
    shared = _common(layout.keys, keys)
    if shared < len(keys):
        return Source(trunk, shared)
    rest = layout.keys[shared:]
    best = Source(trunk, shared)
    for twig in trunk.twigs:
        tokens = _common(rest, np.array(twig.tokens[: twig.length], dtype=np.int64))
        if tokens > best.twig_tokens:
            best = Source(trunk, shared, twig, tokens)
    return best


def _common(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    """How many leading entries agree."""
    size = min(len(a), len(b))
    differ = np.flatnonzero(a[:size] != b[:size])
    return int(differ[0]) if len(differ) else size
