"""Proofs that a picture decodes, for a tenth of what decoding costs.

A decoder of PNG or JPEG fails on what it finds in the headers, and where the bytes end before the picture does. Both
can be shown without making pixels, for the plain forms that nearly all files have. What has no proof here may be whole
all the same and must be decoded to know: the proofs never say that a picture is broken.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from functools import lru_cache

from PIL import Image

PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
PNG_END = b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"
PNG_LEAST = 45
"""Bytes of a signature, a header and an end: shorter files may begin and end well all the same."""
PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""Samples of a pixel by colour type; palettes (3) are left to the decoder."""
PNG_FILTERS = 5
"""Kinds of row filters; a higher number is an error."""
PNG_LENGTHS = {b"pHYs": 9, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32, b"tIME": 7}
"""Chunks that no decoder stumbles over when they have their length."""
INFLATED_BYTES = 16 * 2**20
"""Larger pictures are decoded: their rows would all be held at once here."""

JPEG_START = b"\xff\xd8\xff"
JPEG_END = 0xD9
JPEG_SCAN = 0xDA
JPEG_FRAMES = (0xC0, 0xC1)
"""Frames whose whole picture is one scan: baseline and extended sequential, Huffman coded."""
JPEG_OTHERS = frozenset((*range(0xE0, 0xF0), 0xFE, 0xDB, 0xC4, 0xDD))
"""Applications' own, comments, tables of quantisation and of Huffman codes, restart interval."""
HEADER_BYTES = 4096
"""Longer headers hold thumbnails or profiles and are not remembered."""

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")
"""What ends a scan: anything but an escaped byte and a restart."""

Size = tuple[int, int]
"""Width and height in pixels."""


def whole_png(data: bytes, max_pixels: int) -> Size | None:
    """The size of a PNG whose chunks, checksums and rows are all there; None when that is not shown.

    Nothing is inflated for a picture of more than `max_pixels`.
    """
    if len(data) < PNG_LEAST or not data.startswith(PNG_START) or not data.endswith(PNG_END):
        return None
    width, height, depth, colour, *methods = struct.unpack_from(">IIBBBBB", data, 16)
    channels = PNG_CHANNELS.get(colour)
    if channels is None or depth != 8 or methods != [0, 0, 0] or not width or not height:
        return None
    row = 1 + width * channels
    if width * height > max_pixels or row * height > INFLATED_BYTES:
        return None
    packed = _png_rows(data)
    if packed is None:
        return None
    inflate = zlib.decompressobj()
    try:
        rows = inflate.decompress(packed, row * height + 1)
    except zlib.error:
        return None
    ended = inflate.eof and not inflate.unused_data and len(rows) == row * height
    return (width, height) if ended and max(rows[::row]) < PNG_FILTERS else None


def _png_rows(data: bytes) -> bytes | None:
    """The compressed rows of a PNG whose chunks are of known kinds and undamaged."""
    view = memoryview(data)
    parts: list[memoryview] = []
    at, end = 8, len(data) - len(PNG_END)
    while at < end:
        stop = at + 12 + int.from_bytes(view[at : at + 4])
        if stop > end or zlib.crc32(view[at + 4 : stop - 4]) != int.from_bytes(view[stop - 4 : stop]):
            return None
        kind = bytes(view[at + 4 : at + 8])
        if kind == b"IDAT":
            parts.append(view[at + 8 : stop - 4])
        elif (kind == b"IHDR") != (at == 8) or (at > 8 and PNG_LENGTHS.get(kind) != stop - at - 12):
            return None
        at = stop
    return b"".join(parts)


def whole_jpeg(data: bytes, max_pixels: int) -> Size | None:
    """The size of a JPEG of one scan with headers that decode, and its end in place; None when that is not shown.

    Decoders fill what is missing or garbled inside a scan with grey and never fail on it, as long as they find a
    marker before the bytes end. So the headers alone decide, decoded with an empty scan behind them.
    """
    start = _jpeg_scan(data, max_pixels)
    if start is None:
        return None
    marker = _MARKER.search(data, start)
    if marker is None or data[marker.start() + 1] != JPEG_END:
        return None
    header = data[:start]
    return _jpeg_header(header) if len(header) > HEADER_BYTES else _known_jpeg_header(header)


def _jpeg_scan(data: bytes, max_pixels: int) -> int | None:
    """Where the coded bytes begin in a JPEG of at most `max_pixels` that is one scan of all its components."""
    if not data.startswith(JPEG_START):
        return None
    at, components = 2, 0
    while at + 4 < len(data) and data[at] == 0xFF:
        marker, stop = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == JPEG_SCAN:
            return stop if components and data[at + 4] == components else None
        if marker in JPEG_FRAMES and not components and at + 9 < stop < len(data):
            height, width, components = struct.unpack_from(">HHB", data, at + 5)
            if width * height > max_pixels:
                return None
        elif marker not in JPEG_OTHERS:
            return None
        at = stop
    return None


def _jpeg_header(header: bytes) -> Size | None:
    """The size of a JPEG by its headers, when a decoder gets through them."""
    try:
        with Image.open(io.BytesIO(header + b"\xff\xd9"), formats=("JPEG",)) as image:
            size = image.size
            image.draft("L", (1, 1))
            image.load()
    except Exception:  # decoders raise whatever the broken bytes lead them to
        return None
    return size


_known_jpeg_header = lru_cache(256)(_jpeg_header)
"""Pictures of one size from one program begin alike."""
