"""CPU time by process: on a machine whose cores are all taken, the account that wall time only sums up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

SERVERS = {"postgres": "postgres", "redis-server": "broker", "valkey-server": "broker"}
"""Names of servers that a benchmark starts, and what they are to it."""


class CpuAccount:
    """CPU seconds of this process and all that it started, by role, since `start`."""

    def __init__(self, roles: Mapping[int, str], *, engine: Callable[[psutil.Process], bool]) -> None:
        """`roles` names processes by id, what they start included; `engine` tells those that run a model."""
        self._roles = roles
        self._engine = engine
        self._before = self._now()

    def spent(self) -> dict[str, float]:
        """Seconds by role."""
        now = self._now()
        return {role: round(seconds - self._before.get(role, 0.0), 2) for role, seconds in now.items()}

    def _now(self) -> dict[str, float]:
        sums: dict[str, float] = {}
        own = psutil.Process()
        for process, role in [(own, "benchmark"), *self._under(own, "benchmark")]:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds = times.user + times.system + times.children_user + times.children_system
                sums[role] = sums.get(role, 0.0) + seconds
        return sums

    def _under(self, parent: psutil.Process, role: str) -> list[tuple[psutil.Process, str]]:
        found = []
        for child in parent.children():
            with suppress(psutil.NoSuchProcess):
                name = self._roles.get(child.pid) or SERVERS.get(child.name(), role)
                name = "engine" if self._engine(child) else name
                found += [(child, name), *self._under(child, name)]
        return found
