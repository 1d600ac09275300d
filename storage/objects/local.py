"""Objects as files of a folder."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from reasoning.errors import BadInput, Transient
from storage.errors import StoreFull
from storage.objects.keys import checked
from storage.objects.protocol import Data, StoredObject, pieces

PIECE_BYTES = 2**20
UNFINISHED = ".unfinished"
"""Folder of writes that go on; no key leads there, as the store refuses keys that begin with it."""


class LocalStore:
    """Keys are paths below `root`. A file is written aside and renamed into place when it is whole."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(
        self, key: str, data: Data, *, media_type: str = "application/octet-stream", if_absent: bool = False
    ) -> bool:
        del media_type  # a folder has no place for it
        path = self._path(key)
        with _translated(key):
            if if_absent and path.exists():
                return False
            return self._write(path, data, if_absent=if_absent)

    def open(self, key: str) -> BinaryIO:
        with _translated(key):
            return self._path(key).open("rb")

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        with self.open(key) as stream:
            stream.seek(start)
            return stream.read(-1 if end is None else max(0, end - start))

    def size(self, key: str) -> int:
        path = self._path(key)
        with _translated(key):
            if path.is_dir():
                raise FileNotFoundError(errno.ENOENT, "there is no such object", key)
            return path.stat().st_size

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _translated(key), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            path.unlink()

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        folder, _, _ = prefix.rpartition("/")
        start = self._path(folder) if folder else self.root
        for path in _files(start):
            key = path.relative_to(self.root).as_posix()
            if key.startswith(prefix) and not key.startswith(f"{UNFINISHED}/"):
                with suppress(FileNotFoundError):
                    stat = path.stat()
                    yield StoredObject(key, stat.st_size, stat.st_mtime)

    def url(self, key: str, expires_s: float, *, filename: str | None = None) -> str | None:
        del key, expires_s, filename
        return None

    def check(self) -> dict[str, bool]:
        probe = f"probe/{secrets.token_hex(8)}"
        try:
            self.put(probe, b"probe")
            self.delete(probe)
        except (OSError, Transient) as error:
            raise BadInput(
                f"the object folder {self.root} cannot be written: {error}. Make it writable or name another one.",
                code="object_store_refused",
                field="STAGEBEAM_OBJECT_STORE",
            ) from error
        return {"conditional_put": True, "urls": False}

    def _path(self, key: str) -> Path:
        if checked(key).partition("/")[0] == UNFINISHED:
            raise BadInput(f"object key {key!r} is kept for unfinished writes", code="invalid_key")
        return self.root / key

    def _write(self, path: Path, data: Data, *, if_absent: bool) -> bool:
        unfinished = self.root / UNFINISHED
        unfinished.mkdir(parents=True, exist_ok=True)
        aside = unfinished / secrets.token_hex(12)
        try:
            with aside.open("xb") as stream:
                for piece in pieces(data, PIECE_BYTES):
                    stream.write(piece)
                stream.flush()
                # A row in the database will say that the object is there: it must outlive a power cut too.
                os.fsync(stream.fileno())
            return _place(aside, path, if_absent=if_absent)
        finally:
            aside.unlink(missing_ok=True)


def _place(aside: Path, path: Path, *, if_absent: bool) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if if_absent:
            return _link(aside, path)
        aside.replace(path)
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise BadInput(
            f"{path} cannot be stored: a folder keeps no file and folder of one name; use another key",
            code="invalid_key",
        ) from error
    return True


def _link(aside: Path, path: Path) -> bool:
    """Give the file its name unless somebody has it: the one way that is atomic."""
    try:
        path.hardlink_to(aside)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        # The file system has no hard links; of two writers at once the last one stays.
        if path.exists():
            return False
        aside.replace(path)
    return True


def _files(folder: Path) -> Iterator[Path]:
    """Files below a folder in the order of their keys, where `a/b` comes after `a.b`."""
    try:
        entries = [(f"{entry.name}/" if entry.is_dir() else entry.name, entry) for entry in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, entry in sorted(entries, key=lambda item: item[0]):
        if name.endswith("/"):
            yield from _files(Path(entry.path))
        else:
            yield Path(entry.path)


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except (IsADirectoryError, NotADirectoryError) as error:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", key) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFull(
                f"no room left to store {key} ({os.strerror(error.errno)}); free some space, work goes on by itself"
            ) from error
        raise
