"""Pictures reach a model as people see them."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from workers.engine.images import decode

ORIENTATION = 0x0112
CLOCKWISE = 6
"""Turn it by 90 degrees to see it upright."""


def stored(picture: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def halves() -> Image.Image:
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (64, 32), "red")
    picture.paste("blue", (32, 0, 64, 32))
    return picture


def turned(form: str) -> bytes:
    notes = Image.Exif()
    notes[ORIENTATION] = CLOCKWISE
    return stored(halves(), form, exif=notes)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_photo_stands_upright(form: str) -> None:
    seen = decode("a", lambda _: turned(form))
    assert (seen.mode, seen.size) == ("RGB", (32, 64))
    (top, _, _), (_, _, bottom) = seen.getpixel((16, 8)), seen.getpixel((16, 56))
    assert top > 200
    assert bottom > 200


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_broken_notes_leave_a_picture_as_it_lies(form: str) -> None:
    data = turned(form)
    broken = data.replace(b"MM\x00*", b"MM\xff\xff").replace(b"II*\x00", b"II\xff\xff")
    assert broken != data
    assert decode("a", lambda _: broken).size == (64, 32)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode: str) -> None:
    drawing = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    drawing.paste((0, 0, 0, 255), (0, 0, 8, 16))
    seen = decode("a", lambda _: stored(drawing.convert(mode), "PNG"))
    assert (seen.mode, seen.getpixel((2, 2)), seen.getpixel((14, 14))) == ("RGB", (0, 0, 0), (255, 255, 255))
