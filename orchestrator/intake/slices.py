"""Work in several threads, a slice of items each, and the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cut(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in slices of `size`, the last one shorter."""
    return (items[start : start + size] for start in range(0, len(items), size))


def in_order(
    pool: ThreadPoolExecutor, at_once: int, work: Callable[[Item], Result], slices: Iterable[Sequence[Item]]
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, in order; only the results of `at_once` slices exist at a time."""

    def done(some: Sequence[Item]) -> list[tuple[Item, Result]]:
        return [(item, work(item)) for item in some]

    waiting: deque[Future[list[tuple[Item, Result]]]] = deque()
    for some in slices:
        waiting.append(pool.submit(done, some))
        if len(waiting) == at_once:
            yield from waiting.popleft().result()
    for future in waiting:
        yield from future.result()
