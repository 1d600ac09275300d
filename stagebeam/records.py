"""What the server's documents are in Python. `raw` holds the whole document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

ENDED = ("completed", "failed", "cancelled", "expired")


@dataclass(frozen=True, slots=True)
class Counts:
    """Queries of a job by state."""

    total: int = 0
    waiting: int = 0
    running: int = 0
    done: int = 0
    degraded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One submission."""

    id: str
    status: str
    name: str
    model: str
    counts: Counts
    progress: float | None
    """Part of the queries that ended, 0 to 1; None while their number is not known."""
    eta_s: float | None
    """Seconds until the last query ends at the pace so far; None when nothing honest can be said."""
    paused: bool
    """Whether no more of its queries start until it is resumed."""
    error_count: int
    errors: list[Mapping[str, Any]]
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.status in ENDED

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """From the server's document."""
        names = ("id", "status", "name", "model", "progress", "eta_s", "paused", "error_count", "errors")
        return cls(counts=Counts(**raw["counts"]), raw=raw, **{name: raw[name] for name in names})


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one query."""

    custom_id: str
    line: int
    status: str
    answer: str | None
    error: Mapping[str, Any] | None
    usage: Mapping[str, Any] | None
    raw: Mapping[str, Any] = field(repr=False)
    """Also `trace` and `degraded_reason`, where there are any, and `cursor`."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """From a result line."""
        names = ("custom_id", "line", "status", "answer", "error", "usage")
        return cls(raw=raw, **{name: raw[name] for name in names})


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question that was asked directly."""

    text: str
    thoughts: str | None
    """The hidden stages, when they were asked for."""
    usage: Mapping[str, Any]
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """From a chat completion."""
        message = raw["choices"][0]["message"]
        return cls(message["content"], message.get("reasoning_content"), raw["usage"], raw)
