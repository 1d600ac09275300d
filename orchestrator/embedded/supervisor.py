"""Keeps child processes running: starts them in order, starts a dead one again with back-off, stops them cleanly."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import structlog

from orchestrator.embedded import tether

log = structlog.get_logger()

TICK_S = 0.1
STEADY_S = 30.0
"""A child that ran this long is taken for healthy: its next failure counts as the first."""
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 30.0
STOP_S = 20.0
"""How long a child may take to stop before it is killed."""
HOPELESS = frozenset({2, 4})
"""Exit codes of a child whose settings are wrong: starting it again would fail again."""


@dataclass(frozen=True, slots=True)
class Program:
    """One child: its name in logs, its command line, and where its output goes (None: to ours)."""

    name: str
    command: tuple[str, ...]
    log_file: Path | None = None


def pause_s(failures: int) -> float:
    """How long to wait before starting a child again that failed this often in a row."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** max(0, failures - 1))


@dataclass(slots=True)
class Child:
    """One supervised process and the memory of how it did."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    start_at: float = 0.0
    exit_code: int | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass(slots=True)
class Supervisor:
    """Runs children under one environment; a context manager. Its own thread starts and watches them."""

    programs: Sequence[Program]
    environment: Mapping[str, str]
    held: tuple[int, ...] = ()
    """Descriptors that the children inherit, such as the lock of their data folder."""
    children: list[Child] = field(default_factory=list)
    hopeless: Child | None = None
    """A child that refused its settings; nothing is started any more."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _files: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self.children = [Child(program) for program in self.programs]
        # The kernel ties a child to the thread that started it, so one thread lives as long as they do.
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._files.close()

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and self.hopeless is None:
                for child in self.children:
                    self._look_after(child, time.monotonic())
                self._stop.wait(TICK_S)
        finally:
            self._stop_all()

    def _look_after(self, child: Child, now: float) -> None:
        if child.alive:
            return
        if child.process is not None:
            self._bury(child, now)
        if now >= child.start_at and self.hopeless is None:
            self._start(child, now)

    def _bury(self, child: Child, now: float) -> None:
        assert child.process is not None  # noqa: S101 - the caller has looked
        child.exit_code = child.process.returncode
        child.process = None
        child.failures = 1 if now - child.started_at >= STEADY_S else child.failures + 1
        child.start_at = now + pause_s(child.failures)
        if child.exit_code in HOPELESS:
            self.hopeless = child
            return
        log.warning(
            "A process ended; it is started again.",
            action="child.ended",
            child=child.program.name,
            exit_code=child.exit_code,
            pause_s=pause_s(child.failures),
        )

    def _start(self, child: Child, now: float) -> None:
        output = self._output(child.program)
        child.process = subprocess.Popen(
            [*tethered(), *child.program.command],
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=self.held,
            start_new_session=True,  # Ctrl-C on the terminal reaches us alone, and we stop the children in order
        )
        child.started_at = now
        log.debug("A process started.", action="child.started", child=child.program.name, pid=child.process.pid)

    def _output(self, program: Program) -> IO[bytes] | IO[str]:
        if program.log_file is None:
            return sys.stderr
        program.log_file.parent.mkdir(parents=True, exist_ok=True)
        return self._files.enter_context(program.log_file.open("ab"))

    def _stop_all(self) -> None:
        """Stop all but the first together, then the first: the others may need the broker to give work back."""
        for group in (self.children[1:], self.children[:1]):
            alive = [child.process for child in group if child.process is not None and child.alive]
            for process in alive:
                process.terminate()
            give_up = time.monotonic() + STOP_S
            for process in alive:
                _wait_or_kill(process, give_up)


def _wait_or_kill(process: subprocess.Popen[bytes], give_up: float) -> None:
    try:
        process.wait(max(0.0, give_up - time.monotonic()))
    except subprocess.TimeoutExpired:
        log.warning("A process did not stop and is killed.", action="child.killed", pid=process.pid)
        process.kill()
        process.wait()


def tethered() -> tuple[str, ...]:
    """The beginning of a command line whose program dies with this process."""
    return (sys.executable, "-I", "-S", tether.__file__, str(os.getpid()))
