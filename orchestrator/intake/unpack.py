"""gzip and zstd input, decompressed as it streams, told by its first bytes and bounded in what it may grow to."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

import zstandard

from reasoning.errors import BadInput

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

STEP_BYTES = 2**20
"""Decompressed bytes handed on at a time: a bomb is met in steps of this size."""

WINDOW_BYTES = 128 * 2**20
"""Memory that a zstd frame may ask for; what `zstd --long=27` writes still opens."""

ZSTD_SLICE_BYTES = 512
"""Fed to zstd at a time: it bounds no output, but a block of 128 KiB needs 4 bytes, so this gives 16 MiB at most."""

_GZIP_WBITS = 16 + zlib.MAX_WBITS


def unpack(chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """The chunks as they are, or decompressed when they begin like gzip or zstd (several members in a row too).

    Raises:
        BadInput: `corrupt_compression` (damaged or cut off), `input_too_large` above `max_bytes` decompressed.
    """
    stream = (chunk for chunk in chunks if chunk)
    head = b""
    for chunk in stream:
        head += chunk
        if len(head) >= len(ZSTD_MAGIC):
            break
    whole = chain((head,), stream) if head else iter(())
    if head.startswith(GZIP_MAGIC):
        plain = _gunzip(whole)
    elif head.startswith(ZSTD_MAGIC):
        plain = _unzstd(whole)
    else:
        plain = whole
    return _bounded(plain, max_bytes)


def _bounded(chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > max_bytes:
            raise BadInput(
                f"the input holds more than {max_bytes} bytes; split it into several jobs, "
                "or raise STAGEBEAM_MAX_UPLOAD_BYTES on the server.",
                code="input_too_large",
            )
        yield chunk


def _gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    member = zlib.decompressobj(_GZIP_WBITS)
    try:
        for chunk in chunks:
            data = chunk
            while data:
                if member.eof:
                    # Padding with zero bytes after the last member is common and means nothing.
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    member = zlib.decompressobj(_GZIP_WBITS)
                yield member.decompress(data, STEP_BYTES)
                data = member.unconsumed_tail or member.unused_data
        if not member.eof:
            raise _corrupt("gzip", "it ends too early")
    except zlib.error as error:
        raise _corrupt("gzip", str(error)) from error


def _unzstd(chunks: Iterable[bytes]) -> Iterator[bytes]:
    def new_frame() -> zstandard.ZstdDecompressionObj:
        return zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).decompressobj()

    frame = new_frame()
    try:
        for data in _slices(chunks):
            rest = data
            while rest:
                if frame.eof:
                    frame = new_frame()
                yield frame.decompress(rest)
                rest = frame.unused_data if frame.eof else b""
        if not frame.eof:
            raise _corrupt("zstd", "it ends too early")
    except zstandard.ZstdError as error:
        raise _corrupt("zstd", str(error)) from error


def _slices(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), ZSTD_SLICE_BYTES):
            yield chunk[start : start + ZSTD_SLICE_BYTES]


def _corrupt(kind: str, why: str) -> BadInput:
    return BadInput(
        f"the {kind} input cannot be decompressed: {why}. Compress and upload it again.", code="corrupt_compression"
    )
