from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from orchestrator.intake.fetch import Fetcher
from orchestrator.intake.pictures import Limits, digest
from orchestrator.intake.records import ImageRef
from orchestrator.intake.resolve import HANDFUL, ImageResolver, Verified
from reasoning.errors import BadInput
from tests.intake.lines_of import MemoryKeeper, png

LIMITS = Limits(100_000, 10_000)


@pytest.fixture
def keeper() -> MemoryKeeper:
    return MemoryKeeper(**{"images/o.png": png(9), "images/bad": b"no picture"})


@pytest.fixture
def resolver(keeper: MemoryKeeper, tmp_path: Path) -> Iterator[ImageResolver]:
    with ImageResolver(keeper, LIMITS, Verified(), roots=[tmp_path]) as opened:
        yield opened


def uri(data: bytes) -> ImageRef:
    return ImageRef("data", "data:;base64," + base64.b64encode(data).decode())


def plain(outcomes: dict[ImageRef, str | BadInput]) -> list[str]:
    return [outcome.code if isinstance(outcome, BadInput) else outcome for outcome in outcomes.values()]


def test_every_kind_of_reference(resolver: ImageResolver, keeper: MemoryKeeper, tmp_path: Path):
    (tmp_path / "p.png").write_bytes(png(1))
    expected = {
        ImageRef("path", "p.png"): digest(png(1)),
        uri(png(2)): digest(png(2)),
        ImageRef("object", "images/o.png"): digest(png(9)),
        ImageRef("blob", "a" * 64): "image_missing",
        ImageRef("error", "it was locked", code="image_unreadable"): "image_unreadable",
        ImageRef("url", "https://x.example/a.png"): "image_url_refused",
        ImageRef("path", "none.png"): "image_missing",
        ImageRef("object", "images/bad"): "image_unsupported_format",
        ImageRef("object", "images/none"): "image_missing",
        uri(b"no picture"): "image_unsupported_format",
    }
    outcomes = resolver.resolve(expected)
    assert {ref: plain({ref: outcome})[0] for ref, outcome in outcomes.items()} == expected
    assert set(keeper.stored) == keeper.recorded == {digest(png(1)), digest(png(2)), digest(png(9))}


def test_stored_images_are_found_by_hash(resolver: ImageResolver):
    sha256 = plain(resolver.resolve([uri(png(3))]))[0]
    assert plain(resolver.resolve([ImageRef("blob", sha256)])) == [sha256]


def test_a_source_is_read_once_and_again_when_it_changed(keeper: MemoryKeeper, tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(png(1))
    os.utime(path, ns=(1, 1))
    verified = Verified()

    def resolve() -> str:
        with ImageResolver(keeper, LIMITS, verified, roots=[tmp_path]) as resolver:
            return plain(resolver.resolve([ImageRef("path", "a.png")]))[0]

    assert resolve() == digest(png(1))
    path.write_bytes(png(2))
    os.utime(path, ns=(1, 1))
    assert resolve() == digest(png(1)), "same name, size and time: not read again"
    os.utime(path, ns=(2, 2))
    assert resolve() == digest(png(2))


def test_what_was_deleted_from_the_store_is_stored_again(keeper: MemoryKeeper, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(png(1))
    verified = Verified()
    for _ in range(2):
        with ImageResolver(keeper, LIMITS, verified, roots=[tmp_path]) as resolver:
            resolver.resolve([ImageRef("path", "a.png")])
        assert keeper.recorded == {digest(png(1))}
        keeper.stored.clear()
        keeper.recorded.clear()


class CountingFetcher(Fetcher):
    """Answers from a dictionary and counts."""

    def __init__(self, pages: dict[str, bytes]) -> None:
        super().__init__(max_bytes=100_000)
        self.pages = pages
        self.asked: list[str] = []

    def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        if url not in self.pages:
            raise BadInput("nobody there", code="image_url_failed")
        return self.pages[url]


def test_an_address_is_asked_once_even_when_it_fails(keeper: MemoryKeeper):
    fetcher = CountingFetcher({"http://a/": png(1)})
    refs = [ImageRef("url", "http://a/"), ImageRef("url", "http://b/")]
    with ImageResolver(keeper, LIMITS, Verified(), fetcher=fetcher) as resolver:
        for _ in range(3):
            assert plain(resolver.resolve(refs)) == [digest(png(1)), "image_url_failed"]
    assert sorted(fetcher.asked) == ["http://a/", "http://b/"]


def test_results_come_in_order_and_few_at_a_time(keeper: MemoryKeeper):
    refs: Iterable[ImageRef] = [uri(png(number)) for number in range(60)]
    with ImageResolver(keeper, LIMITS, Verified()) as resolver:
        assert plain(resolver.resolve(refs)) == [digest(png(number)) for number in range(60)]


class CountingKeeper(MemoryKeeper):
    """Notes how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def known(self, hashes: Iterable[str]) -> set[str]:
        names = list(hashes)
        self.asked.append(len(names))
        return super().known(names)


def test_the_database_is_asked_for_many_images_at_once_and_once_for_each():
    keeper = CountingKeeper()
    refs = [uri(png(number)) for number in range(HANDFUL + 10)]
    for _ in range(2):
        with ImageResolver(keeper, LIMITS, Verified()) as resolver:
            resolver.resolve(refs)
            resolver.resolve(refs)
    assert keeper.asked == [HANDFUL, 10] * 2
    assert len(keeper.recorded) == HANDFUL + 10


def test_files_that_change_while_they_are_read_again_are_refused(keeper: MemoryKeeper, tmp_path: Path):
    """Known by name, size and time, so that it is read only to be stored, and then holds something else."""
    path = tmp_path / "a.png"
    path.write_bytes(png(1))
    os.utime(path, ns=(1, 1))
    verified = Verified()
    with ImageResolver(keeper, LIMITS, verified, roots=[tmp_path]) as resolver:
        resolver.resolve([ImageRef("path", "a.png")])
    keeper.stored.clear()
    keeper.recorded.clear()
    path.write_bytes(png(2))
    os.utime(path, ns=(1, 1))
    (tmp_path / "b.png").write_bytes(png(3))
    refs = [ImageRef("path", "a.png"), ImageRef("path", "b.png"), uri(png(4))]
    with ImageResolver(keeper, LIMITS, verified, roots=[tmp_path]) as resolver:
        assert plain(resolver.resolve(refs)) == ["image_unreadable", digest(png(3)), digest(png(4))]
    assert keeper.recorded == {digest(png(3)), digest(png(4))}
