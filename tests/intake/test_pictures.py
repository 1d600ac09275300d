from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from orchestrator.intake.pictures import Limits, from_data_uri, inspect
from orchestrator.intake.wholeness import JPEG_START, PNG_END, PNG_START, whole_jpeg, whole_png
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


def test_a_jpeg_with_further_pictures_behind_the_first_is_a_jpeg():
    """Phones and stereo cameras write such files; every decoder shows the first picture."""
    stream = io.BytesIO()
    Image.new("RGB", (20, 10)).save(stream, "MPO", save_all=True, append_images=[Image.new("RGB", (20, 10))])
    picture = inspect(stream.getvalue(), LIMITS)
    assert (picture.media_type, picture.width, picture.height) == ("image/jpeg", 20, 10)


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


@pytest.mark.parametrize(("start", "end"), [(PNG_START, PNG_END), (JPEG_START, b"\xff\xd9")])
@given(inner=st.binary(max_size=40))
@example(inner=b"")
def test_a_beginning_and_an_end_alone_are_refused(start: bytes, end: bytes, inner: bytes):
    assert code_of(start + inner + end) in ("image_unreadable", "image_unsupported_format", "image_too_many_pixels")


def test_a_truncated_picture_is_refused():
    stream = io.BytesIO()
    Image.effect_noise((80, 80), 60).save(stream, "JPEG")
    assert code_of(stream.getvalue()[: len(stream.getvalue()) // 2]) == "image_unreadable"


def encoded(kind: str, mode: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((80, 72), 60).convert("RGB").convert(mode).save(stream, kind, **options)
    return stream.getvalue()


JPEG_OPTIONS: list[dict[str, Any]] = [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"comment": b"by hand"}]
JPEGS = [encoded("JPEG", mode, **options) for mode in ("L", "RGB", "CMYK") for options in JPEG_OPTIONS]
PNGS = [
    encoded("PNG", mode, **options)
    for mode in ("L", "LA", "RGB", "RGBA", "P", "1")
    for options in ({}, {"dpi": (72, 72)})
]


def decoded_size(data: bytes) -> tuple[int, int] | None:
    """What a decode of the whole picture finds; None when it fails."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            image.load()
            return image.size if image.width * image.height <= LIMITS.max_pixels else None
    except Exception:
        return None


def checksums_repaired(png_data: bytes) -> bytes:
    """The file with right checksums on whatever its chunks hold now."""
    out = bytearray(png_data)
    at = 8
    while at + 12 <= len(out) and (stop := at + 12 + int.from_bytes(out[at : at + 4])) <= len(out):
        out[stop - 4 : stop] = zlib.crc32(out[at + 4 : stop - 4]).to_bytes(4)
        at = stop
    return bytes(out)


NOISE = st.lists(
    st.tuples(st.one_of(st.floats(0, 0.999), st.floats(0, 0.15)), st.sampled_from([*range(256), 0xFF, 0xD9, 0xC4])),
    max_size=3,
)


@given(st.sampled_from(JPEGS + PNGS), NOISE, st.booleans(), st.booleans())
def test_a_picture_is_judged_as_one_that_is_decoded_whole(
    data: bytes, noise: list[tuple[float, int]], cut: bool, repair: bool
):
    """It is proved whole, or decoded at an eighth of its size, and must fail where an engine will."""
    broken = bytearray(data)
    for at, value in noise:
        broken[int(at * len(data))] = value
    given_bytes = bytes(broken[: len(data) * 3 // 4] if cut else broken)
    if repair and data in PNGS:
        given_bytes = checksums_repaired(given_bytes)
    expected = decoded_size(given_bytes)
    try:
        picture = inspect(given_bytes, LIMITS)
    except BadInput:
        assert expected is None
    else:
        assert (picture.width, picture.height) == expected


@pytest.mark.parametrize("data", [data for data in JPEGS if b"\xff\xc2" not in data])
def test_plain_jpegs_need_no_decode(data: bytes):
    assert whole_jpeg(data, 80 * 72) == (80, 72)
    assert whole_jpeg(data, 80 * 72 - 1) is None
    assert whole_jpeg(data[:-2], 80 * 72) is None


@pytest.mark.parametrize("data", PNGS[:8])
def test_plain_pngs_need_no_decode(data: bytes):
    assert whole_png(data, 80 * 72) == (80, 72)
    assert whole_png(data, 80 * 72 - 1) is None
    assert whole_png(data[:-2], 80 * 72) is None


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
