from __future__ import annotations

import base64
import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchestrator.intake.pictures import Limits, from_data_uri, inspect
from reasoning.errors import BadInput
from tests.intake.lines_of import png

LIMITS = Limits(max_bytes=100_000, max_pixels=10_000)


def code_of(data: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(BadInput) as caught:
        inspect(data, limits)
    return caught.value.code


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_formats_that_are_read(kind: str):
    stream = io.BytesIO()
    Image.new("RGB", (20, 10)).save(stream, kind)
    picture = inspect(stream.getvalue(), LIMITS)
    assert (picture.media_type, picture.width, picture.height) == (f"image/{kind.lower()}", 20, 10)
    assert picture.size == len(stream.getvalue())


def test_other_formats_are_refused():
    stream = io.BytesIO()
    Image.new("RGB", (20, 10)).save(stream, "TIFF")
    assert code_of(stream.getvalue()) == "image_unsupported_format"
    assert code_of(b"<svg/>") == "image_unsupported_format"


def test_a_bomb_is_refused_by_its_header():
    """A PNG of 60,000 by 60,000 pixels in some hundred bytes: decoded it would take 10 GB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    assert code_of(data, Limits(10**6, 64_000_000)) == "image_too_many_pixels"


def test_limits_are_exact():
    data = png(size=(100, 100))
    assert inspect(data, Limits(len(data), 10_000)).width == 100
    assert code_of(data, Limits(len(data) - 1, 10_000)) == "image_too_large"
    assert code_of(data, Limits(len(data), 9_999)) == "image_too_many_pixels"
    assert code_of(b"") == "image_unreadable"


@given(st.integers(0, 2**32), st.integers(0, 200), st.binary(max_size=20))
def test_damaged_pictures_never_crash(seed: int, at: int, noise: bytes):
    data = bytearray(png(seed % 1000, size=(30, 30)))
    data[at : at + len(noise)] = noise
    try:
        inspect(bytes(data), LIMITS)
    except BadInput as error:
        code = error.code
    else:
        code = None
    assert code in (None, "image_unreadable", "image_unsupported_format", "image_too_many_pixels")


def test_a_truncated_picture_is_refused():
    stream = io.BytesIO()
    Image.effect_noise((80, 80), 60).save(stream, "JPEG")
    assert code_of(stream.getvalue()[: len(stream.getvalue()) // 2]) == "image_unreadable"


def jpeg(mode: str, *, progressive: bool) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((80, 72), 60).convert("RGB").convert(mode).save(stream, "JPEG", progressive=progressive)
    return stream.getvalue()


JPEGS = [jpeg(mode, progressive=progressive) for mode in ("L", "RGB", "CMYK") for progressive in (False, True)]


@given(st.sampled_from(JPEGS), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=3), st.booleans())
def test_a_jpeg_is_judged_as_one_that_is_decoded_whole(data: bytes, noise: list[tuple[float, int]], cut: bool):
    """It is decoded at an eighth of its size, and must fail where an engine will."""
    broken = bytearray(data)
    for at, value in noise:
        broken[int(at * len(data))] = value
    given_bytes = bytes(broken[: len(data) - 400] if cut else broken)
    try:
        with Image.open(io.BytesIO(given_bytes), formats=("JPEG",)) as image:
            image.load()
            expected = image.size if image.width * image.height <= LIMITS.max_pixels else None
    except Exception:
        expected = None
    try:
        picture = inspect(given_bytes, LIMITS)
    except BadInput:
        assert expected is None
    else:
        assert (picture.width, picture.height) == expected


@given(st.binary(min_size=1, max_size=200))
def test_data_uris_come_back(data: bytes):
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    assert from_data_uri(uri, LIMITS) == data
    assert from_data_uri(uri.rstrip("="), LIMITS) == data


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("data:image/png;base64", "invalid_data_uri"),
        ("data:image/png;base64,a b c", "invalid_data_uri"),
        ("data:image/png;base64,äöü", "invalid_data_uri"),
        ("data:image/png;base64," + "A" * 200_000, "image_too_large"),
        ("data:image/png," + "%00" * 200_000, "image_too_large"),
    ],
)
def test_bad_data_uris(uri: str, code: str):
    with pytest.raises(BadInput) as caught:
        from_data_uri(uri, LIMITS)
    assert caught.value.code == code
