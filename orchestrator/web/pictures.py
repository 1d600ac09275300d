"""Decoded pictures kept in memory for a while: a page shows the same few again and again."""

from __future__ import annotations

import threading
from collections import OrderedDict

KEPT = 256
"""Pictures kept, most of them small."""
KEPT_BYTES = 64 * 2**20

Key = tuple[str, str, str]
"""Project, content hash, size."""


class Pictures:
    """The newest pictures, bounded in number and bytes. Thread-safe."""

    def __init__(self) -> None:
        self._items: OrderedDict[Key, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._bytes = 0

    def get(self, key: Key) -> bytes | None:
        """A picture."""
        with self._lock:
            found = self._items.get(key)
            if found is not None:
                self._items.move_to_end(key)
            return found

    def put(self, key: Key, data: bytes) -> None:
        """Keep a picture, and let the oldest go."""
        with self._lock:
            self._items[key] = data
            self._bytes += len(data)
            while self._items and (len(self._items) > KEPT or self._bytes > KEPT_BYTES):
                self._bytes -= len(self._items.popitem(last=False)[1])
