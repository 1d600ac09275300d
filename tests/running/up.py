"""`stagebeam up` as a user starts it, for tests of what speaks to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.services.processes import SERVERS, free_port, wrapped
from tests.waiting import wait_until

QUICK = {"STAGEBEAM_LEASE_S": "2", "STAGEBEAM_RECONCILE_S": "0.5", "STAGEBEAM_RESEND_S": "1"}
"""So that what a death leaves behind is taken up within a test's patience."""


@dataclass(frozen=True, slots=True)
class Up:
    """A running stack."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]


@contextmanager
def up(folder: Path, *, model: str = "scripted", port: int = 0, settings: Mapping[str, str] = QUICK) -> Iterator[Up]:
    """Start the stack on a folder and wait until it is ready; stop it when the block ends."""
    chosen = port or free_port()
    url = f"http://127.0.0.1:{chosen}"
    command = [sys.executable, "-m", "orchestrator.cli", "up", "--host", "127.0.0.1", "--port", str(chosen)]
    command += ["--data", str(folder), "--model", model]
    log_file = folder.parent / f"{folder.name}.log"
    with log_file.open("ab") as log:
        process = subprocess.Popen([*wrapped(), *command], stderr=log, stdout=log, env={**os.environ, **settings})
    SERVERS.add(process.pid)
    try:
        wait_until(lambda: _ready(url, process), 300, what=f"ready:\n{log_file.read_text()[-2000:]}")
        yield Up(url, folder, process)
    finally:
        process.terminate()
        process.wait(30)
        SERVERS.discard(process.pid)


def _ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None or httpx.get(f"{url}/health/ready").is_success
