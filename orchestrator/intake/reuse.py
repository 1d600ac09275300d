"""Incremental jobs: each row is keyed by everything that its result depends on, and known results are taken over.

A job takes part when its options hold `reuse`: a salt (what all its rows depend on: project, model and revision,
version of the method) and whether stored results are used or the keys are only noted for later runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import orjson
from sqlalchemy import Connection

from orchestrator.intake.records import AcceptedLine
from orchestrator.intake.rows import Earlier, NewQuery
from reasoning.policy import Policy
from storage import reuse

CACHED_DIGESTS = 256


@dataclass(slots=True)
class Reuse:
    """The keys of one job's rows, and the results stored under them."""

    salt: str
    policy: Policy
    use: bool
    _digests: dict[bytes, str] = field(default_factory=dict)

    @classmethod
    def of(cls, job: Any) -> Self | None:
        """What a job row asks for; None when it is no incremental job."""
        asked = (job.options or {}).get("reuse")
        return cls(asked["salt"], Policy.from_mapping(job.policy), asked["use"]) if asked else None

    def key(self, line: AcceptedLine, hashes: Sequence[str]) -> str:
        """The content key of a row. Its `custom_id` is part of it, as candidates draw their noise from it.

        A known answer and metadata are not: they change nothing about the result.
        """
        turns = [[turn.role, turn.text] for turn in line.context]
        policy = self._digest(line)
        row = [self.salt, line.custom_id, line.question, list(hashes), list(line.choices), turns, policy]
        return hashlib.sha256(orjson.dumps(row)).hexdigest()

    def taken_over(self, conn: Connection, rows: Sequence[NewQuery]) -> list[NewQuery]:
        """The rows, those with a stored result already done."""
        if not self.use:
            return list(rows)
        found = reuse.known(conn, [row.content_key for row in rows if row.content_key], hold=True)
        return [replace(row, earlier=_earlier(found.get(row.content_key or ""))) for row in rows]

    def _digest(self, line: AcceptedLine) -> str:
        if not line.policy:
            return self.policy.digest
        overrides = orjson.dumps(dict(line.policy), option=orjson.OPT_SORT_KEYS)
        if overrides not in self._digests:
            if len(self._digests) >= CACHED_DIGESTS:
                self._digests.clear()
            self._digests[overrides] = self.policy.with_overrides(line.policy).digest
        return self._digests[overrides]


def _earlier(row: Any) -> Earlier | None:
    if row is None:
        return None
    path = None if row.path is None else orjson.dumps(row.path).decode()
    return Earlier(row.id, row.answer, row.format_ok, path, row.trace_key)
