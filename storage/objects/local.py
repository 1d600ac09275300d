"""Objects as files of a folder."""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from reasoning.errors import BadInput, Transient
from storage.errors import StoreFull
from storage.objects.keys import checked
from storage.objects.protocol import Data, StoredObject, pieces
from storage.objects.syncing import sync

PIECE_BYTES = 2**20
FORGOTTEN_S = 86400.0
"""A file written aside that nobody touched for so long was left by a process that died."""
TRIES = 100
"""At giving a file its name while others remove the last file of its folder, and the folder with it."""
UNFINISHED = ".unfinished"
"""Folder of writes that go on; no key leads there, as the store refuses keys that begin with it."""

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
READABLE = 0o666
"""Before the process's mask, as `open` has it."""


class LocalStore:
    """Keys are paths below `root`. A file is written aside, and gets its name when all of it is on the disk.

    Rows in the database will say that an object is there: it must outlive a power cut too. So the file is synced
    before it gets its name, and the folders that lead to it are synced after.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root = str(root)
        self._unfinished = root / UNFINISHED
        self._tidied = False
        self._mark = secrets.token_hex(12)
        self._numbers = itertools.count()

    def put(
        self, key: str, data: Data, *, media_type: str = "application/octet-stream", if_absent: bool = False
    ) -> bool:
        del media_type  # a folder has no place for it
        path = self.path_of(key)
        with _translated(key):
            if if_absent and path.exists():
                sync([path.parent])  # its writer may not have come so far
                return False
            aside = self.write_aside(data)
            try:
                sync([aside])
                holders = self.holders([path])
                placed = _place(aside, str(path), if_absent=if_absent)
                sync(holders)
            finally:
                _remove([aside])
        return placed

    def group(self) -> LocalGroup:
        return LocalGroup(self)

    def open(self, key: str) -> BinaryIO:
        with _translated(key):
            return self.path_of(key).open("rb")

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        with self.open(key) as stream:
            stream.seek(start)
            return stream.read(-1 if end is None else max(0, end - start))

    def size(self, key: str) -> int:
        path = self.path_of(key)
        with _translated(key):
            if path.is_dir():
                raise FileNotFoundError(errno.ENOENT, "there is no such object", key)
            return path.stat().st_size

    def exists(self, key: str) -> bool:
        return self.path_of(key).is_file()

    def delete(self, key: str) -> None:
        path = self.path_of(key)
        with _translated(key), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            path.unlink()
            self._remove_empty(path)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        folder, _, _ = prefix.rpartition("/")
        start = self.path_of(folder) if folder else self.root
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

    def path_of(self, key: str) -> Path:
        """Where the object is, or would be. Raises BadInput."""
        return Path(self.place_of(key))

    def place_of(self, key: str) -> str:
        """`path_of` as text, for those who handle thousands of objects a second. Raises BadInput."""
        if checked(key).partition("/")[0] == UNFINISHED:
            raise BadInput(f"object key {key!r} is kept for unfinished writes", code="invalid_key")
        return f"{self._root}/{key}"

    def _remove_empty(self, path: Path) -> None:
        """Remove the folders that led to a file and to nothing else."""
        for folder in self._folders_to(path)[:-1]:
            try:
                folder.rmdir()
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return

    def write_aside(self, data: Data) -> str:
        """The data in a file that no key leads to, and the place of that file."""
        if not self._tidied:
            self._tidied = True
            _remove(path for path in _files(self._unfinished) if _age(path) > FORGOTTEN_S)
        aside = f"{self._root}/{UNFINISHED}/{self._mark}-{next(self._numbers)}"
        try:
            number = os.open(aside, NEW, READABLE)
        except FileNotFoundError:
            self._unfinished.mkdir(parents=True, exist_ok=True)
            number = os.open(aside, NEW, READABLE)
        try:
            try:
                _write(number, data)
            finally:
                os.close(number)
        except BaseException:
            _remove([aside])
            raise
        return aside

    def holders(self, paths: Iterable[str | Path]) -> set[str]:
        """The folders that will hold a new name once these files are there: those of the files, and of new folders."""
        found: set[str] = set()
        for parent in {os.path.dirname(path) for path in paths}:  # noqa: PTH120 - thousands of names
            folder = parent
            while folder not in found:
                found.add(folder)
                if folder == self._root or os.path.exists(folder):  # noqa: PTH110
                    break
                folder = os.path.dirname(folder)  # noqa: PTH120
        return found

    def _folders_to(self, path: Path) -> Sequence[Path]:
        """The folders that lead to a file, the root last."""
        return [folder for folder in path.parents if folder == self.root or self.root in folder.parents]


class LocalGroup:
    """Files that are written aside one by one, then synced and named together."""

    threads = 2

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._asides: dict[str, str] = {}
        """Where each file is now, by the place that it will have."""
        self._there: set[str] = set()
        """Files that others wrote, and may not have made to stay yet."""

    def put(self, key: str, data: Data, *, media_type: str = "application/octet-stream") -> None:
        del media_type
        place = self._store.place_of(key)
        if place in self._asides:
            return
        with _translated(key):
            if os.path.exists(place):  # noqa: PTH110 - thousands a second
                self._there.add(place)
                return
            aside = self._store.write_aside(data)
        if self._asides.setdefault(place, aside) is not aside:
            _remove([aside])

    def keep(self) -> None:
        try:
            with _translated("a group of objects"):
                sync(self._asides.values())
                holders = self._store.holders({*self._asides, *self._there})
                for place, aside in self._asides.items():
                    _place(aside, place, if_absent=False)
                self._asides.clear()
                sync(holders)
        finally:
            self.drop()

    def drop(self) -> None:
        _remove(self._asides.values())
        self._asides.clear()
        self._there.clear()


def _write(number: int, data: Data) -> None:
    """Write to an open file, without a buffer: an image is one call."""
    for piece in pieces(data, PIECE_BYTES):
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(number, rest) :]


def _age(path: Path) -> float:
    """Seconds since a file was written to; 0.0 when it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove(places: Iterable[str | Path]) -> None:
    for place in places:
        with suppress(FileNotFoundError):
            os.unlink(place)  # noqa: PTH108 - thousands a second


def _place(aside: str, place: str, *, if_absent: bool) -> bool:
    try:
        for _ in range(TRIES):
            with suppress(FileNotFoundError):
                return _named(aside, place, if_absent=if_absent)
            with suppress(FileNotFoundError, FileExistsError):
                Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        return _named(aside, place, if_absent=if_absent)
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise BadInput(
            f"{place} cannot be stored: a folder keeps no file and folder of one name; use another key",
            code="invalid_key",
        ) from error


def _named(aside: str, place: str, *, if_absent: bool) -> bool:
    if if_absent:
        return _link(aside, Path(place))
    os.replace(aside, place)  # noqa: PTH105 - thousands a second
    return True


def _link(aside: str, path: Path) -> bool:
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
        Path(aside).replace(path)
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
