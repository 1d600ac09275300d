"""Keys of calls: deterministic, unique within a query, readable in a log.

`caption/r0/generate/0-3`, `caption/r0/generate/2/a1`, `caption/r0/compare/1v2`, `reasoning/r0/check/1v2/2`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

CACHED_STAGES = 512
"""Key sets kept: a few stages for each number of candidates in use."""


class GenerateKeys(NamedTuple):
    """Keys of the first draw of a stage: all candidates in one call, or one call each."""

    together: str
    apart: tuple[str, ...]


@lru_cache(maxsize=CACHED_STAGES)
def generate_keys(stage: str, round_: int, width: int) -> GenerateKeys:
    """Both ways to draw `width` candidates; for one candidate they are the same call."""
    stem = f"{stage}/r{round_}/generate"
    apart = tuple(f"{stem}/{index}" for index in range(width))
    return GenerateKeys(apart[0] if width == 1 else f"{stem}/0-{width - 1}", apart)


def compare_key(stage: str, round_: int, first: int, second: int) -> str:
    """Key of a comparison, candidates in the order first shown."""
    return f"{stage}/r{round_}/compare/{first}v{second}"


def check_key(stage: str, round_: int, first: int, second: int, checked: int) -> str:
    """Key of the published pre-check of `checked` before a comparison."""
    return f"{stage}/r{round_}/check/{first}v{second}/{checked}"


def retry_key(key: str, attempt: int) -> str:
    """Key of the same call drawn again; attempt 0 is the call itself."""
    return f"{key}/a{attempt}" if attempt else key


def judges(key: str, stage: str, round_: int, first: int, second: int) -> bool:
    """Whether `key` is of a call that judged this pair, in either order, at whatever attempt."""
    stem = key.rpartition("/a")[0] or key
    pairs = ((first, second), (second, first))
    names = [compare_key(stage, round_, *pair) for pair in pairs]
    names += [check_key(stage, round_, *pair, checked) for pair in pairs for checked in pair]
    return stem in names
