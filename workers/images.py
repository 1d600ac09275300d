"""Image bytes for engines: from the object store, with the last few kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict

from storage import blobs
from storage.database import Database
from storage.objects import ObjectStore

CACHE_BYTES = 64 * 2**20
"""Engines keep their own features; this only spares the calls of one query and its neighbours the store."""


class StoredImages:
    """An `ImageLoader` over the database and the object store. Thread-safe."""

    def __init__(self, db: Database, objects: ObjectStore, cache_bytes: int = CACHE_BYTES) -> None:
        self._db = db
        self._objects = objects
        self._most = cache_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, content_hash: str) -> bytes:
        """The encoded image. Raises KeyError when it is not stored, Transient when database or store are away."""
        with self._lock:
            if content_hash in self._kept:
                self._kept.move_to_end(content_hash)
                return self._kept[content_hash]
        with self._db.read() as conn:
            image = blobs.of_any(conn, content_hash)
        if image is None:
            raise KeyError(content_hash)
        try:
            data = blobs.read(self._objects, image)
        except FileNotFoundError:
            raise KeyError(content_hash) from None
        self._keep(content_hash, data)
        return data

    def _keep(self, content_hash: str, data: bytes) -> None:
        with self._lock:
            if content_hash not in self._kept and len(data) <= self._most:
                self._kept[content_hash] = data
                self._bytes += len(data)
            while self._bytes > self._most:
                self._bytes -= len(self._kept.popitem(last=False)[1])
