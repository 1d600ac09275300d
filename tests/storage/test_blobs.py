"""Images: one row each, and an object each or a bundle with others, on every database and object store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from storage import blobs, bundles
from storage.blobs import BlobRow
from storage.bundles import BUNDLED_BYTES, Bundler, Place
from storage.database import Database
from storage.objects import LocalStore, ObjectStore
from storage.tables import Blob


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def row_of(data: bytes, place: Place | None) -> BlobRow:
    where = {} if place is None else {"bundle": place.bundle, "bundle_start": place.start}
    return BlobRow(name_of(data), len(data), "image/png", 1, 1, **where)


def bundled(store: ObjectStore, images: Sequence[bytes]) -> dict[str, Place]:
    """Put the images together; where they lie."""
    bundler = Bundler(store.group())
    for image in images:
        bundler.put(name_of(image), image, "image/png")
    return bundler.keep()


@contextmanager
def bundles_of(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundles, "BUNDLE_BYTES", size)
        yield


def test_an_image_is_stored_once_however_often_it_comes(database: Database, objects: ObjectStore):
    name = name_of(b"pixels")
    assert [bundled(objects, [b"pixels", b"pixels"]) for _ in range(2)] == [{}, {}]
    with database.write() as conn:
        blobs.record(conn, "p", [BlobRow(name, 6, "image/png", 2, 3)], 1.0)
        blobs.record(conn, "p", [BlobRow(name, 6, "image/jpeg", 9, 9)], 2.0)
        row = blobs.get(conn, "p", name)
        assert row is not None
        assert (row.bytes, row.media_type, row.width, row.height, row.created_at) == (6, "image/png", 2, 3, 1.0)
        assert conn.execute(select(func.count()).select_from(Blob.__table__)).scalar_one() == 1
    assert [entry.size for entry in objects.list("blobs/")] == [6]
    assert blobs.read(objects, row) == b"pixels"


def test_many_small_images_share_an_object(database: Database, objects: ObjectStore):
    images = [b"image %d" % n for n in range(20)]
    places = bundled(objects, images)
    with database.write() as conn:
        blobs.record(conn, "p", [row_of(image, places.get(name_of(image))) for image in images], 1.0)
    assert [entry.size for entry in objects.list()] == [sum(map(len, images))]
    with database.read() as conn:
        found: list[Any] = [blobs.get(conn, "p", name_of(image)) for image in images]
    assert [blobs.read(objects, row) for row in found] == images


def test_what_was_noted_first_stays(database: Database):
    rows = [BlobRow(name_of(b"%d" % n), 1, "image/png", 1, 1) for n in range(20)]
    names = [row.sha256 for row in rows]
    with database.write() as conn:
        blobs.record(conn, "p", rows[:10], 1.0)
        assert blobs.known(conn, "p", names) == set(names[:10])
        elsewhere = [BlobRow(name, 1, "image/png", 1, 1, "b" * 64, 5) for name in names]
        blobs.record(conn, "p", elsewhere, 2.0)
        blobs.record(conn, "p", [], 2.0)
        assert blobs.known(conn, "p", [*names, "unknown"]) == set(names)
        starts = conn.execute(select(Blob.sha256, Blob.bundle_start)).all()
    assert dict(map(tuple, starts)) == {name: None if n < 10 else 5 for n, name in enumerate(names)}


def test_what_a_project_has_is_not_another_ones(database: Database):
    name = name_of(b"a")
    with database.write() as conn:
        blobs.record(conn, "p", [BlobRow(name, 1, "image/png", 1, 1)], 1.0)
        assert (blobs.known(conn, "q", [name]), blobs.get(conn, "q", name)) == (set(), None)
        blobs.record(conn, "q", [BlobRow(name, 1, "image/png", 1, 1, "b" * 64, 5)], 2.0)
        theirs, ours = blobs.get(conn, "q", name), blobs.get(conn, "p", name)
        assert theirs is not None
        assert ours is not None
        assert (theirs.bundle_start, ours.bundle_start) == (5, None)
        place = blobs.of_any(conn, name)
        assert (place.bundle, place.bundle_start) in ((None, None), ("b" * 64, 5))
        assert blobs.of_any(conn, "unknown") is None


def test_one_alone_or_large_has_an_object_of_its_own(objects: ObjectStore):
    large = b"x" * (BUNDLED_BYTES + 1)
    assert bundled(objects, [b"small", large, large]) == {}
    sizes = {entry.key: entry.size for entry in objects.list()}
    assert sizes == {f"blobs/{name_of(one)[:2]}/{name_of(one)}": len(one) for one in (b"small", large)}


def test_what_was_dropped_is_not_stored(objects: ObjectStore):
    bundler = Bundler(objects.group())
    bundler.put(name_of(b"a"), b"a", "image/png")
    bundler.put(name_of(b"b"), b"b", "image/png")
    bundler.drop()
    assert bundler.keep() == {}
    assert list(objects.list()) == []


def test_the_same_images_again_are_the_same_bundle(objects: ObjectStore):
    images = [b"one", b"two", b"three"]
    assert bundled(objects, images) == bundled(objects, images)
    assert len(list(objects.list())) == 1


@given(st.lists(st.binary(min_size=1, max_size=40)), st.integers(1, 100))
def test_every_image_is_found_where_it_is_said_to_lie(
    tmp_path_factory: pytest.TempPathFactory, images: list[bytes], size: int
):
    store = LocalStore(tmp_path_factory.mktemp("store"))
    with bundles_of(size):
        places = bundled(store, images)
    for image in images:
        row: Any = row_of(image, places.get(name_of(image)))
        assert blobs.read(store, row) == image
    assert sum(entry.size for entry in store.list()) == sum(map(len, set(images)))


def test_images_may_come_from_several_threads(tmp_path: Any):
    images = [b"%d" % n * 50 for n in range(2000)]
    store = LocalStore(tmp_path)
    bundler = Bundler(store.group())
    with bundles_of(3000), ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda image: bundler.put(name_of(image), image, "image/png"), images + images):
            pass
        places = bundler.keep()
    rows: list[Any] = [row_of(image, places.get(name_of(image))) for image in images]
    assert [blobs.read(store, row) for row in rows] == images
