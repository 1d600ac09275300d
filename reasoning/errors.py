"""Errors by who must act. Each message says what happened, where, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StagebeamError(Exception):
    """Base of every error that stagebeam raises on purpose."""


class BadInput(StagebeamError):
    """The person who sent this must change it.

    `code` is a stable word for programs, `field` the path of the offending field (or None for the
    whole record), `line` the 1-based line of an input file where there is one.
    """

    def __init__(self, message: str, *, code: str, field: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.field = field
        self.line = line


class Transient(StagebeamError):
    """Nobody must act: the same call is expected to succeed later and is retried with back-off."""


class ModelError(StagebeamError):
    """The model or its engine could not do this call; recorded on the query.

    `code` is stable, `retryable` says whether trying again can help.
    """

    def __init__(self, message: str, *, code: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retryable = retryable


class InvariantBroken(StagebeamError):
    """A bug in stagebeam: stop loudly rather than go on with wrong data."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as ` Did you mean "images"?`, or an empty string when nothing is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{close[0]}"?' if close else ""
