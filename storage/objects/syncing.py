"""Making files and folders outlive a power cut."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

FEW = 4
"""Up to so many files are synced one by one; each costs a flush of the disk's cache, a millisecond or more."""


def sync(paths: Iterable[str | Path]) -> None:
    """Return when the disk has these files and folders of one file system; what is gone needs none. Raises OSError.

    Many are synced by one `syncfs`, where there is one (Linux): it takes all that was written to the file system so
    far, with one flush. What others wrote goes along.
    """
    wanted = list(paths)
    at_once = _syncfs() if len(wanted) > FEW else None
    for path in wanted:
        try:
            number = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            if at_once is None:
                os.fsync(number)
            elif at_once(number) != 0:
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error), str(path))
            else:
                return
        finally:
            os.close(number)


@cache
def _syncfs() -> Any:
    """The function of the C library, which Python has no name for; None where there is none."""
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
