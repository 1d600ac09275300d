"""Waiting for something to become true, in place of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")


def wait_until(look: Callable[[], Seen], timeout: float = 10.0, *, pause: float = 0.01, what: str = "") -> Seen:
    """Call `look` until it returns something true and return that.

    An exception of `look` counts as not yet. On time-out the failure tells what was seen last.
    """
    end = time.monotonic() + timeout
    while True:
        error: Exception | None = None
        seen = None
        try:
            seen = look()
        except Exception as caught:
            error = caught
        if seen:
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"{what or 'not true'} within {timeout} s; last seen: {seen!r}") from error
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)
