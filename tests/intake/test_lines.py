from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.intake.lines import TOO_LONG, split_lines
from orchestrator.intake.unpack import unpack
from reasoning.errors import BadInput


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """The data in pieces of the given sizes, over and over."""
    at, turn = 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        yield data[at : at + size]
        at, turn = at + size, turn + 1


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=4)
TEXT = st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b" ", b"\xef\xbb\xbf", b"bcdefghij"]), max_size=30).map(b"".join)


@given(TEXT, SIZES, st.integers(1, 12))
def test_lines_do_not_depend_on_how_the_stream_is_cut(data: bytes, sizes: list[int], limit: int):
    expected = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        whole = line.removesuffix(b"\r")
        if len(whole) > limit:
            expected.append((number, TOO_LONG))
        elif whole.strip(b" \r\t"):
            expected.append((number, whole))
    assert list(split_lines(cut(data, sizes), limit)) == expected


def test_a_line_without_end_takes_no_more_memory_than_the_limit():
    def endless() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 2**20
        yield b"\nshort"

    tracemalloc.start()
    try:
        found = list(split_lines(endless(), 2**20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [(1, TOO_LONG), (2, b"short")]
    assert peak < 8 * 2**20


PLAIN = b'{"a": 1}\n' * 500


@pytest.mark.parametrize("packed", [gzip.compress(PLAIN), zstandard.compress(PLAIN)], ids=["gzip", "zstd"])
class TestCompressed:
    @given(sizes=SIZES)
    def test_members_in_a_row_read_as_one(self, packed: bytes, sizes: list[int]):
        assert b"".join(unpack(cut(packed + packed, sizes), 10**6)) == PLAIN + PLAIN

    def test_a_cut_file_is_refused(self, packed: bytes):
        for end in range(4, len(packed), 7):
            with pytest.raises(BadInput, match="ends too early") as caught:
                list(unpack([packed[:end]], 10**6))
            assert caught.value.code == "corrupt_compression"

    def test_damage_is_refused(self, packed: bytes):
        broken = packed[:20] + b"\xff" * 8 + packed[28:]
        with pytest.raises(BadInput) as caught:
            list(unpack([broken], 10**6))
        assert caught.value.code == "corrupt_compression"

    def test_growth_is_bounded(self, packed: bytes):
        with pytest.raises(BadInput) as caught:
            list(unpack([packed], 1000))
        assert caught.value.code == "input_too_large"


def test_padding_after_gzip_means_nothing():
    assert b"".join(unpack([gzip.compress(PLAIN) + b"\0" * 512], 10**6)) == PLAIN


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_bomb_is_met_in_small_steps(kind: str):
    size = 160 * 2**20
    if kind == "gzip":
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        bomb = b"".join(packer.compress(b"\0" * 2**20) for _ in range(size // 2**20)) + packer.flush()
    else:
        writer = zstandard.ZstdCompressor().compressobj()
        bomb = b"".join(writer.compress(b"\0" * 2**20) for _ in range(size // 2**20)) + writer.flush()
    tracemalloc.start()
    try:
        with pytest.raises(BadInput) as caught:
            for _ in unpack([bomb], size // 2):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == "input_too_large"
    assert peak < 48 * 2**20
