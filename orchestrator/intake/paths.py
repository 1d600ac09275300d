"""Image files named by path: only below the allowed folders, links resolved, regular files alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reasoning.errors import BadInput


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file inside the allowed folders, and what tells its contents apart from later ones."""

    path: str
    size: int
    changed_ns: int


def locate(name: str, roots: Sequence[Path], *, advice: str) -> FoundFile:
    """The image file that `name` means. A relative name is looked up in the roots in turn.

    Links are followed before the check, so that none leads out. Nothing is looked at outside the roots
    before the name is refused, and so the answer does not tell whether a file exists there.

    Raises:
        BadInput: `image_outside_roots` (ended by `advice`), `image_missing`, `image_unreadable`.
    """
    outside = not roots
    for root in roots:
        base = os.path.realpath(root)
        full = _resolved(base, name)
        if full is None or not full.startswith(base.rstrip(os.sep) + os.sep):
            outside = True
            continue
        try:
            facts = os.stat(full)  # noqa: PTH116 - names come by the million, a Path each is slow
        except OSError:
            continue
        if not stat.S_ISREG(facts.st_mode):
            raise BadInput(f'"{name}" is not a file; name an image file.', code="image_unreadable")
        return FoundFile(full, facts.st_size, facts.st_mtime_ns)
    if outside:
        raise BadInput(f'"{name}" lies outside the folders that may be read. {advice}', code="image_outside_roots")
    raise BadInput(f'there is no file "{name}"; check the name.', code="image_missing")


def _resolved(base: str, name: str) -> str | None:
    try:
        return os.path.realpath(os.path.join(base, name))  # noqa: PTH118 - as above
    except (OSError, ValueError):
        return None


def read_file(found: FoundFile, max_bytes: int) -> bytes:
    """The file's bytes, one more than `max_bytes` at most.

    Raises:
        BadInput: `image_unreadable`; also when the name has become a link or a pipe since it was looked up.
    """
    try:
        handle = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise BadInput(f'"{Path(found.path).name}" is not a file.', code="image_unreadable")
            return file.read(max_bytes + 1)
    except OSError as error:
        raise BadInput(
            f'"{Path(found.path).name}" cannot be read: {error.strerror}. Check its permissions.',
            code="image_unreadable",
        ) from error
