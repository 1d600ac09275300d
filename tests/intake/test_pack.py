from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.intake.pack import ASK_HASHES, PackLimits, pack
from orchestrator.intake.pictures import Limits, digest
from orchestrator.intake.records import AcceptedLine
from reasoning.errors import BadInput
from tests.intake.lines_of import chat, codes, judged, native, png, text


class Server:
    """What the other side has and was sent."""

    def __init__(self, *there: str) -> None:
        self.there = set(there)
        self.asked: list[str] = []
        self.sent: list[tuple[str, str]] = []

    def has(self, hashes: Sequence[str]) -> set[str]:
        assert 0 < len(hashes) <= ASK_HASHES
        self.asked += hashes
        return self.there & set(hashes)

    def upload(self, sha256: str, data: bytes, media_type: str) -> None:
        assert digest(data) == sha256
        self.sent.append((sha256, media_type))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "in"
    inside.mkdir()
    for number in range(3):
        (inside / f"{number}.png").write_bytes(png(number))
    (inside / "same.png").write_bytes(png(0))
    (inside / "bad.png").write_bytes(b"no picture")
    (tmp_path / "secret.png").write_bytes(png(9))
    return inside


def packed(data: bytes, folder: Path, server: Server, **limits: Any) -> list[Any]:
    lines = b"".join(pack([data], [folder], server.has, server.upload, PackLimits(**limits))).split(b"\n")
    assert lines.pop() == b""
    return [orjson.loads(line) if line[:1] == b"{" else line for line in lines]


def test_paths_become_blobs_and_each_image_goes_up_once(folder: Path):
    server = Server(digest(png(1)))
    data = text(native("a", images=["0.png", "1.png"]), native("b", images="same.png"), native("c", images=["0.png"]))
    lines = packed(gzip.compress(data), folder, server)
    blobs = [f"blob:{digest(png(number))}" for number in range(2)]
    assert [line["images"] for line in lines] == [blobs, blobs[:1], blobs[:1]]
    assert server.sent == [(digest(png(0)), "image/png")]
    assert all(codes(verdict) == [] for verdict in judged(text(*lines)).values())


def test_what_cannot_be_read_is_said_with_the_same_codes(folder: Path):
    data = text(native(images=["none.png", "../secret.png", "bad.png", "0.png"]))
    (line,) = packed(data, folder, Server(), images=Limits(100_000, 10**6))
    found = [image["error"]["code"] if isinstance(image, dict) else image[:5] for image in line["images"]]
    assert found == ["image_missing", "image_outside_roots", "image_unsupported_format", "blob:"]
    (verdict,) = judged(text(line)).values()
    assert isinstance(verdict, AcceptedLine), "the server finds the marker when it resolves the images"


def test_chat_lines_are_packed_too(folder: Path):
    parts = [
        {"type": "image_url", "image_url": {"url": "0.png"}},
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
        {"type": "text", "text": "What?"},
    ]
    server = Server()
    (line,) = packed(text(chat(messages=[{"role": "user", "content": parts}])), folder, server)
    urls = [part["image_url"]["url"] for part in line["body"]["messages"][0]["content"][:2]]
    assert urls == [f"blob:{digest(png(0))}", "https://x.example/a.png"]
    assert len(server.sent) == 1


def test_everything_else_goes_through_unchanged_on_its_own_line(folder: Path):
    lines = [
        b"{broken",
        b"\xff\xfe",
        b"[1]",
        b"",
        orjson.dumps(native(images=["data:;base64,AAAA", "blob:" + "a" * 64, "object:images/x", "http://x/", 7])),
        b'{"images": [{"error": {"code": "c", "message": "m"}}], "metadata": 1.50}',
        b'{"images": ["0.png"], "deep": ' + b"[" * 400 + b"]" * 400 + b"}",
    ]
    out = b"".join(pack([b"\n".join(lines)], [folder], Server().has, Server().upload))
    assert out == b"\n".join(lines) + b"\n"


def test_a_line_too_long_stays_a_line_with_its_error(folder: Path):
    lines = packed(text(native("x" * 300), native("b")), folder, Server(), max_line_bytes=200)
    verdicts = judged(text(*lines))
    assert [codes(verdict) for verdict in verdicts.values()] == [[(None, "line_too_long")], []]


def test_a_long_file_goes_in_pieces_and_the_server_is_asked_once_for_each_image(folder: Path):
    server = Server()
    data = text(*[native(f"q-{number}", images=[f"{number % 3}.png"]) for number in range(2000)])
    pieces = list(pack([data], [folder], server.has, server.upload))
    assert len(pieces) >= 4
    assert sorted(server.asked) == sorted(digest(png(number)) for number in range(3))
    assert [codes(verdict) for verdict in judged(iter(pieces)).values()] == [[]] * 2000


def test_many_images_are_asked_about_in_parts(folder: Path):
    for number in range(3, ASK_HASHES + 20):
        (folder / f"{number}.png").write_bytes(png(number))
    names = [f"{number}.png" for number in range(ASK_HASHES + 20)]
    server = Server()
    packed(text(*[native(f"q-{at}", images=names[at : at + 50]) for at in range(0, len(names), 50)]), folder, server)
    assert len(server.sent) == len(server.asked) == len(names)


def test_an_empty_input_stays_empty(folder: Path):
    assert list(pack([b""], [folder], Server().has, Server().upload)) == []
    assert b"".join(pack([b"\n\n"], [folder], Server().has, Server().upload)) == b""


def test_a_broken_archive_is_an_error(folder: Path):
    with pytest.raises(BadInput) as caught:
        list(pack([gzip.compress(text(native()))[:-9]], [folder], Server().has, Server().upload))
    assert caught.value.code == "corrupt_compression"


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=6))
def test_the_server_sees_the_same_lines(folder: Path, lines: list[bytes]):
    data = b"\n".join([b"first", *lines])
    before = judged(data)
    out = b"".join(pack([data], [folder], Server().has, Server().upload))
    assert {n: codes(v) for n, v in judged(out).items()} == {n: codes(v) for n, v in before.items()}
