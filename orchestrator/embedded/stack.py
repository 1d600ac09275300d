"""The embedded stack: broker, worker, orchestrator and API over one data folder, resumed by the next start on it."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.embedded import valkey
from orchestrator.embedded.folder import locked
from orchestrator.embedded.supervisor import Program, Supervisor, tethered
from orchestrator.exposure import refuse_unsafe
from reasoning.errors import BadInput, StagebeamError
from storage.settings import PREFIX, Settings

READY_S = 90.0
"""How long the API may take to answer; a cold start of a small machine takes a few seconds."""
_POLL_S = 0.1
_ASK_S = 5.0


class StackFailed(StagebeamError):
    """A part of the stack could not be started."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack."""

    url: str
    supervisor: Supervisor

    def check(self) -> None:
        """Raise StackFailed when a part gave up."""
        child = self.supervisor.hopeless
        if child is not None:
            where = f"; see {child.program.log_file}" if child.program.log_file else "; its message stands above"
            raise StackFailed(f"the {child.program.name} refused to start (exit code {child.exit_code}){where}")

    def wait_ready(self, stop: threading.Event | None = None) -> None:
        """Return when the API answers that it is ready, or when `stop` is set. Raises StackFailed."""
        self.wait_for(
            lambda: (stop is not None and stop.is_set()) or answers(f"{self.url}/health/ready"),
            "the API did not become ready",
        )

    def wait_for(self, condition: Callable[[], bool], complaint: str, patience_s: float = READY_S) -> None:
        """Return when the condition holds. Raises StackFailed with the complaint after `patience_s` seconds."""
        give_up = time.monotonic() + patience_s
        while not condition():
            self.check()
            if time.monotonic() > give_up:
                raise StackFailed(f"{complaint} within {patience_s:.0f} s")
            time.sleep(_POLL_S)


@contextmanager
def running(settings: Settings, *, logs: Path | None = None) -> Iterator[Stack]:
    """Start the stack of `settings`; stop it when the block ends.

    `logs` is a folder for the output of the children, or None to let them write to our stderr. The broker,
    database and object store are the embedded ones wherever the settings name no other.

    Raises:
        FolderInUse: another stack runs on the data folder.
        BadInput: the port is taken, the address is not safe, or a setting cannot be used.
        StackFailed: database or object store cannot be made ready.
    """
    folder = settings.data_dir.resolve()
    refuse_unsafe(settings)
    with ExitStack() as stack:
        lock = stack.enter_context(locked(folder))
        check_port(settings.host, settings.port)
        programs = []
        broker = settings.broker_url
        if not broker:
            path = stack.enter_context(valkey.socket_path(folder))
            # Its own file even when the others write to our stderr: what it warns of is for its administrators.
            programs.append(Program("broker", valkey.command(folder, path), _log(logs or folder / "logs", "broker")))
            broker = valkey.broker_url(path)
        environment = child_environment(settings, broker, os.environ)
        _prepare(environment)
        programs += [Program(name, stagebeam(name), _log(logs, name)) for name in services()]
        supervisor = stack.enter_context(Supervisor(programs, environment, held=(lock,)))
        yield Stack(url_of(settings), supervisor)


def services() -> tuple[str, ...]:
    """The services of the stack in the order they start; the API goes last, so that an answer means it is all there."""
    scheduler = ("scheduler",) if importlib.util.find_spec("orchestrator.cli.scheduler") else ()
    return ("worker", "orchestrator", *scheduler, "api")


def stagebeam(*arguments: str) -> tuple[str, ...]:
    """The command line that runs `stagebeam` with this interpreter."""
    return (sys.executable, "-m", "orchestrator.cli", *arguments)


def child_environment(settings: Settings, broker_url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the children: ours, with what was decided here on top."""
    decided = {
        "DATA_DIR": str(settings.data_dir.resolve()),
        "DATABASE_URL": settings.effective_database_url,
        "OBJECT_STORE": settings.effective_object_store,
        "BROKER_URL": broker_url,
        "HOST": settings.host,
        "PORT": str(settings.port),
        "MODEL": settings.model,
    }
    return {**environ, **{PREFIX + name: value for name, value in decided.items()}, "PYTHONUNBUFFERED": "1"}


def url_of(settings: Settings) -> str:
    """Where the API of these settings is reached from this machine."""
    host = settings.host if settings.loopback else "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def answers(url: str) -> bool:
    """Whether a GET of the address succeeds."""
    import httpx

    try:
        return httpx.get(url, timeout=_ASK_S).is_success
    except httpx.TransportError:
        return False


def check_port(host: str, port: int) -> None:
    """Raise BadInput when something else listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            message = f"cannot listen on {host} port {port}: {error.strerror}. Choose another with --port."
            raise BadInput(message, code="port_taken", field="STAGEBEAM_PORT") from None


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _prepare(environment: Mapping[str, str]) -> None:
    # As a process of its own, so that this one stays small: it only watches.
    done = subprocess.run(
        [*tethered(), *stagebeam("prepare", "--json")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackFailed(f"database and object store could not be made ready: {_message(done.stderr)}")


def _message(written: str) -> str:
    """What a command said with `--json` on its last line before it failed; all of it where that is no document."""
    *_, last = written.strip().splitlines() or [""]
    try:
        return str(json.loads(last)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return written.strip()


def _log(logs: Path | None, name: str) -> Path | None:
    return None if logs is None else logs / f"{name}.log"
