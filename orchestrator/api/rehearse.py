"""A change that may be rehearsed: done in its transaction, and undone before anybody sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from storage.database import Database

Result = TypeVar("Result")


class _Rehearsed(Exception):
    """Ends the transaction of a rehearsal."""


def rehearsed(db: Database, work: Callable[[Connection], Result], *, dry_run: bool) -> Result:
    """The result of `work` in a write transaction, which is rolled back in a dry run."""
    found: list[Result] = []
    try:
        with db.write() as conn:
            found.append(work(conn))
            if dry_run:
                raise _Rehearsed
    except _Rehearsed:
        pass
    return found[0]
