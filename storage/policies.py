"""Policies by digest, read once: many queries share one, and it never changes."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select

from reasoning.policy import Policy
from storage.portable import any_of
from storage.tables import Job

_JOBS = Job.__table__


class Policies:
    """Those seen so far, the newest `most`. Thread-safe."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._known: dict[str, Policy] = {}

    def of(self, conn: Connection, jobs: Mapping[str, str]) -> dict[str, Policy]:
        """The policy of each digest; `jobs` names a job that has it."""
        found = {digest: self._known.get(digest) for digest in jobs}
        missing = [jobs[digest] for digest, policy in found.items() if policy is None]
        if missing:
            statement = select(_JOBS.c.policy_digest, _JOBS.c.policy).where(any_of(_JOBS.c.id, missing))
            for digest, mapping in conn.execute(statement):
                found[digest] = policy = Policy.from_mapping(mapping)
                self._keep(digest, policy)
        return {digest: policy for digest, policy in found.items() if policy is not None}

    def _keep(self, digest: str, policy: Policy) -> None:
        known = {**self._known, digest: policy}
        while len(known) > self._most:
            del known[next(iter(known))]
        self._known = known
