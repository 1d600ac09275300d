"""Fixtures for every test: private servers, the leak check and Hypothesis' manners."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.services.processes import SERVERS, children
from tests.waiting import wait_until

pytest_plugins = [
    "tests.running.parallel",
    "tests.services.live",
    "tests.services.postgres",
    "tests.services.redis",
    "tests.services.s3",
    "tests.services.stores",
]

settings.register_profile(
    "stagebeam", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "stagebeam"))

# Tracebacks as the services write them: by default the locals of every frame are shown, seconds long for tensors.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith(("STAGEBEAM_", "AWS_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """A test that leaves a process running fails."""
    before = set(children())
    yield

    def left() -> dict[int, str]:
        return {pid: line for pid, line in children().items() if pid not in before and pid not in SERVERS}

    if left():
        wait_until(lambda: not left(), 3.0, what=f"child processes ended ({left()})")
