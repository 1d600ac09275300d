from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.intake.slices import cut, in_order


@given(st.lists(st.integers()), st.integers(1, 9))
def test_slices_hold_everything_in_order(items: list[int], size: int):
    slices = list(cut(items, size))
    assert [item for some in slices for item in some] == items
    assert all(len(some) == size for some in slices[:-1])
    assert all(slices)


def test_results_come_in_order_and_few_at_a_time():
    """A slice is begun only when one of those before it was taken."""
    begun: list[int] = []
    with ThreadPoolExecutor(4) as pool:
        results = in_order(pool, 3, lambda number: begun.append(number) or number * 2, cut(range(40), 2))
        for place, (item, result) in enumerate(results):
            assert (item, result) == (place, place * 2)
            assert len(begun) <= place + 2 * 3 + 1
    assert sorted(begun) == list(range(40))


def test_slices_are_worked_on_at_the_same_time():
    meeting = threading.Barrier(3, timeout=20)
    with ThreadPoolExecutor(3) as pool:
        found = list(in_order(pool, 3, lambda _number: meeting.wait(), cut(range(3), 1)))
    assert len(found) == 3
