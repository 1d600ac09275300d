"""The whole embedded stack as a user starts it, once for the session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.services.processes import free_port, server


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of `stagebeam up` with the scripted engine; a question with `#slow` in it takes its time."""
    folder = tmp_path_factory.mktemp("live")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["env", "STAGEBEAM_RECONCILE_S=0.3", sys.executable, "-m", "orchestrator.cli", "up"]
    command += ["--port", str(port), "--data", str(folder / "data"), "--model", "scripted:markers=true"]

    def ready() -> bool:
        return httpx.get(f"{url}/health/ready", timeout=2).is_success

    with server(command, log=folder / "log", ready=ready, cwd=Path(__file__).parents[2], timeout=90):
        yield url
