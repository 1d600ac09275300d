"""A command of `stagebeam` as a user types it: run in this process, or as one of its own where that is what is tested.

Inside this process a command does and says the same, and does not wait for an interpreter that imports everything.
What only a process of its own shows is tested with those: exit codes in tests/cli, signals, a real standard input.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.cli import main

PROGRAM = (sys.executable, "-m", "orchestrator.cli")
"""The beginning of a command line that runs `stagebeam` as a process."""


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def typed(*arguments: str, folder: Path | None = None, **settings: str) -> Said:
    """Run a command in this process, in a folder; `settings` are variables without their prefix."""
    out, err = _Text(), _Text()
    with (
        pytest.MonkeyPatch.context() as patch,
        chdir(folder or Path.cwd()),
        redirect_stdout(out.stream),
        redirect_stderr(err.stream),
    ):
        patch.setattr(sys, "argv", ["stagebeam", *arguments])
        patch.setattr(sys, "excepthook", sys.excepthook)  # the command line puts its own there
        for name, value in settings.items():
            patch.setenv(f"STAGEBEAM_{name}", value)
        with pytest.raises(SystemExit) as ended:
            main()
    return Said(_code(ended.value), out.text(), err.text())


def environment(environ: Mapping[str, str], **settings: str) -> dict[str, str]:
    """What a command that runs as a process gets: the environment with settings on top."""
    return {**environ, **{f"STAGEBEAM_{name}": value for name, value in settings.items()}}


def _code(ended: SystemExit) -> int:
    assert ended.code is None or isinstance(ended.code, int), ended.code
    return ended.code or 0


class _Text:
    """A stream of text over bytes, as the standard ones are."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self.stream = io.TextIOWrapper(self._bytes, encoding="utf-8", write_through=True)

    def text(self) -> str:
        return self._bytes.getvalue().decode()
