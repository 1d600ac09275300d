from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.intake import seen
from orchestrator.intake.seen import RECENT, SeenIds


@contextmanager
def mark_bytes(count: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen, "MARK_BYTES", count)
        yield


@given(st.lists(st.text(max_size=2)), st.integers(1, 4))
def test_the_first_line_of_every_id_is_told_however_few_marks_there_are(ids: list[str], count: int):
    first: dict[str, int] = {}
    with mark_bytes(count), SeenIds() as index:
        for line, custom_id in enumerate(ids):
            assert index.first_use(custom_id, line) == first.get(custom_id)
            first.setdefault(custom_id, line)


def test_ids_that_went_to_the_index_are_found_there():
    ids = [f"q-{number}\0" for number in range(2 * RECENT + 3)]
    with SeenIds() as index:
        assert {index.first_use(custom_id, line) for line, custom_id in enumerate(ids, 1)} == {None}
        assert [index.first_use(custom_id, 9999) for custom_id in ids] == list(range(1, len(ids) + 1))
        assert index.first_use("new", 10_000) is None
