"""Failed queries grouped by what went wrong, so that 37 lines with one cause are one line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from storage.causes import fingerprint

EXAMPLES = 3


@dataclass(slots=True)
class Cause:
    """Queries of one job that failed in the same way."""

    job_id: str
    code: str
    pattern: str
    """The message with numbers, names and hashes left out."""
    message: str
    """The first message of the group, whole."""
    retryable: bool
    mark: str | None
    """What `cause:` finds the whole group by; None for errors stored before there were marks."""
    count: int = 0
    stages: set[str] = field(default_factory=set)
    examples: list[Any] = field(default_factory=list)
    """The first queries of the group."""

    @property
    def filter(self) -> str:
        """The queries of the group, as a filter."""
        return f"status:failed,expired cause:{self.mark}" if self.mark else f"status:failed,expired error:{self.code}"


def group(rows: Iterable[Any]) -> list[Cause]:
    """Causes, most frequent first."""
    found: dict[tuple[str, str, str], Cause] = {}
    for row in rows:
        error = row.error or {}
        code, message = str(error.get("code", "unknown")), str(error.get("message", ""))
        key = (row.job_id, code, fingerprint(message))
        cause = found.get(key)
        if cause is None:
            cause = found[key] = Cause(*key, message, bool(error.get("retryable")), error.get("cause"))
        cause.count += 1
        if error.get("stage"):
            cause.stages.add(str(error["stage"]))
        if len(cause.examples) < EXAMPLES:
            cause.examples.append(row)
    return sorted(found.values(), key=lambda cause: (-cause.count, cause.code))
