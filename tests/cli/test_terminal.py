"""What people see on a terminal of a running stack: long texts are cut there, and whole everywhere else."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
from contextlib import suppress

import pytest

from stagebeam import Client
from tests.client.test_client import png
from tests.running.command import PROGRAM

pytestmark = pytest.mark.timeout(120)
QUESTION = "Long? " + "word " * 2000


def on_terminal(url: str, *arguments: str, columns: int) -> str:
    """What a terminal of that width shows."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        env={**environment, "STAGEBEAM_URL": url, "TERM": "dumb"},
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    seen = bytearray()
    with suppress(OSError):  # the other side was closed
        while piece := os.read(main, 4096):
            seen += piece
    os.close(main)
    assert process.wait(50) == 0, seen.decode()
    return seen.decode().replace("\r\n", "\n")


def piped(url: str, *arguments: str) -> str:
    done = subprocess.run(
        [*PROGRAM, *arguments], env={**os.environ, "STAGEBEAM_URL": url}, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_a_long_question(live: str, columns: int) -> None:
    with Client(live) as client:
        line = {"custom_id": "q0", "question": QUESTION, "choices": ["x " * 500, "y"], "images": [png(1)]}
        job = client.submit([line]).id
        client.wait(job, 30)
    shown = on_terminal(live, "query", "show", f"{job}/q0", columns=columns)
    assert max(map(len, shown.splitlines())) <= columns
    assert len(shown.splitlines()) < 60
    assert shown.count(" more characters") == shown.count("--json") == 2
    trace = on_terminal(live, "query", "trace", f"{job}/q0", columns=columns)
    assert "Texts that end in … are cut" in trace
    jobs = on_terminal(live, "job", "list", columns=columns)
    assert job in jobs
    assert max(map(len, jobs.splitlines())) <= columns
    assert QUESTION.strip() in piped(live, "query", "show", f"{job}/q0")
    assert json.loads(piped(live, "query", "show", f"{job}/q0", "--json"))["question"] == QUESTION
