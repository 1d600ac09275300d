"""The data folder of an embedded stack: at most one stack uses it at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reasoning.errors import BadInput, StagebeamError

WAIT_S = 3.0
"""How long children of a stack that was just killed may take to let go."""
_POLL_S = 0.05


class FolderInUse(StagebeamError):
    """Another stack runs on this data folder."""


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Create the folder if need be and hold it; yields the descriptor of the lock, for children to hold too.

    Raises:
        FolderInUse: another stack, or a child that outlived one, holds it.
        BadInput: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        message = f"the data folder {folder} cannot be used: {error.strerror}. Choose another with --data."
        raise BadInput(message, code="invalid_setting", field="STAGEBEAM_DATA_DIR") from None
    try:
        _take(descriptor, folder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    give_up = time.monotonic() + WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > give_up:
                holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
                message = (
                    f"another stack (process {holder}) already runs on {folder}. "
                    "Use that one, stop it, or choose another folder with --data."
                )
                raise FolderInUse(message) from None
            time.sleep(_POLL_S)
