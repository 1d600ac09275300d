"""Where checked images go: the blobs of the database and object store, or nowhere in a dry run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from orchestrator.intake.pictures import Picture
from reasoning.errors import BadInput
from storage import blobs
from storage.bundles import Bundler, Place
from storage.database import Database
from storage.objects import ObjectStore

OPEN_PREFIXES = ("images/", "datasets/")
"""Keys that a line may name by `object:`. All other keys are stagebeam's own and may hold what others sent."""


class Keeper(Protocol):
    """Knows which images are stored, stores new ones, and reads objects that people placed in the store."""

    @property
    def threads(self) -> int:
        """How many threads at `upload` are fastest."""
        ...

    def known(self, hashes: Sequence[str]) -> set[str]:
        """Those of the content hashes that are stored and recorded."""
        ...

    def upload(self, picture: Picture, data: bytes) -> None:
        """Take the bytes of an image; called from several threads, none of them during `record`."""
        ...

    def record(self, pictures: Sequence[Picture]) -> None:
        """Make the bytes taken so far stay, all at once, and note the images: a row promises that they are there."""
        ...

    def close(self) -> None:
        """Forget bytes that were taken and not recorded."""
        ...

    def read_object(self, key: str, max_bytes: int) -> bytes:
        """An object, one byte more than `max_bytes` at most. Raises BadInput."""
        ...


class BlobKeeper:
    """Keeps the images of a project as blobs. With `dry=True` it looks and stores nothing."""

    def __init__(
        self, db: Database, objects: ObjectStore, project_id: str, now: Callable[[], float], *, dry: bool = False
    ) -> None:
        self._db = db
        self._project_id = project_id
        self._objects = objects
        self._group = objects.group()
        self._bundler = Bundler(self._group)
        self._now = now
        self._dry = dry

    @property
    def threads(self) -> int:
        return self._group.threads

    def known(self, hashes: Sequence[str]) -> set[str]:
        with self._db.read() as conn:
            return blobs.known(conn, self._project_id, hashes)

    def upload(self, picture: Picture, data: bytes) -> None:
        if not self._dry:
            self._bundler.put(picture.sha256, data, picture.media_type)

    def record(self, pictures: Sequence[Picture]) -> None:
        if self._dry or not pictures:
            return
        places = self._bundler.keep()
        rows = [_row(picture, places.get(picture.sha256)) for picture in pictures]
        with self._db.write() as conn:
            blobs.record(conn, self._project_id, rows, self._now())

    def close(self) -> None:
        self._bundler.drop()

    def read_object(self, key: str, max_bytes: int) -> bytes:
        if not key.startswith(OPEN_PREFIXES):
            raise BadInput(
                f"an object key must begin with {' or '.join(OPEN_PREFIXES)}; place the image there.",
                code="image_outside_roots",
            )
        try:
            return self._objects.read(key, 0, max_bytes + 1)
        except FileNotFoundError as error:
            raise BadInput(f"there is no object {key!r} in the store; check the key.", code="image_missing") from error


def _row(picture: Picture, place: Place | None) -> blobs.BlobRow:
    row = blobs.BlobRow(picture.sha256, picture.size, picture.media_type, picture.width, picture.height)
    return row if place is None else replace(row, bundle=place.bundle, bundle_start=place.start)
