"""Child processes of the tests: they end with their parent, and none is left behind unseen."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

REQUIRED = bool(os.environ.get("CI"))
"""In CI a missing server fails the tests that need it; at home it skips them."""

SERVERS: set[int] = set()
"""Ids of the servers that live as long as the session, for the leak check."""


def missing(program: str) -> None:
    """Skip at home, fail in CI."""
    message = f"{program} is not installed"
    if REQUIRED:
        pytest.fail(message)
    pytest.skip(message)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wrapped(user: str | None = None) -> list[str]:
    """Words before a command line so that it dies with us, however we die, and runs as `user` when we are root."""
    words: list[str] = []
    if shutil.which("setpriv"):
        words = ["setpriv", "--pdeathsig", "KILL"]
        if user and os.geteuid() == 0:
            account = pwd.getpwnam(user)
            words += [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups"]
        words += ["--"]
    return words


@contextlib.contextmanager
def server(
    command: Sequence[str], *, log: Path, ready: Callable[[], bool], cwd: Path | None = None, timeout: float = 20.0
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; `ready` says when it answers. Its log is part of a failure's message."""
    with log.open("wb") as out:
        process = subprocess.Popen([*wrapped(), *command], cwd=cwd, stdout=out, stderr=subprocess.STDOUT)
    SERVERS.add(process.pid)
    try:
        end = time.monotonic() + timeout
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        SERVERS.discard(process.pid)


def _answers(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except Exception:
        return False


def children() -> dict[int, str]:
    """Our living child processes and their command lines; empty where /proc has no such list."""
    found: dict[int, str] = {}
    words: list[str] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            words += path.read_text().split()
    for word in words:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{word}/stat").read_text().rpartition(")")[2].split()[0]
            line = Path(f"/proc/{word}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if state != "Z" and "resource_tracker" not in line:
                found[int(word)] = line
    return found
