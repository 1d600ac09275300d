"""Failures of storage itself, told apart from those of its users."""

from __future__ import annotations

from reasoning.errors import Transient


class Conflict(Transient):
    """The transaction was rolled back because another one was in its way; running it again is right."""


class StoreFull(Transient):
    """The disk, database or bucket has no room left; work waits until somebody makes some."""
