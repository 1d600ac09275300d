"""What a worker holds of its machine's memory and of its device's, in bytes."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from workers.engine.device_memory import device_memory

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where Linux says what a container may use: a number, or `max`."""


class Memory:
    """Looks again and again, and remembers the most: the engines apart from this process may end and begin anew."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._most = 0

    def look(self) -> dict[str, dict[str, int]]:
        """By place, `process` (its engines included) and on a GPU also `device`: `used`, `most` and `total`."""
        used = _used()
        self._most = max(self._most, used, _most())
        found = {"process": {"used": used, "most": self._most, "total": _total()}}
        on_device = device_memory(self._device)
        return found if on_device is None else {**found, "device": on_device}


def _used() -> int:
    """Resident memory of this process and its children."""
    own = psutil.Process()
    used: int = own.memory_info().rss
    for child in own.children():
        with suppress(psutil.NoSuchProcess):
            used += child.memory_info().rss
    return used


def _most() -> int:
    """The kernel's high-water mark of this process, in kilobytes but on macOS."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _total() -> int:
    """What the process may use: the machine's memory, or the limit of its container."""
    total: int = psutil.virtual_memory().total
    with suppress(OSError, ValueError):  # no container, or one without a limit
        total = min(total, int(CONTAINER_LIMIT.read_text()))
    return total
