"""compose.yaml as processes: the commands and environment that it names, on private servers of this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from storage.access import create_key
from storage.database import open_database
from tests.services.processes import SERVERS, wrapped

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose.yaml"

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def load(variables: Mapping[str, str]) -> dict[str, Any]:
    """The document with variables put in, as compose does it. Raises KeyError on a required one that is not set."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if variables.get(name):
            return variables[name]
        if operator == "?":
            raise KeyError(rest)
        return rest or ""

    text = "\n".join(line for line in COMPOSE.read_text().splitlines() if not line.lstrip().startswith("#"))
    document: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, text))
    return document


@dataclass
class Composed:
    """Our services as compose.yaml describes them; `addresses` maps what it calls a host to what stands in for it."""

    document: dict[str, Any]
    addresses: Mapping[str, str]
    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    """Settings of the test on top, such as shorter leases."""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def environment(self, service: str) -> dict[str, str]:
        """What the service's process gets: the environment of compose.yaml, and a path to find programs by."""
        named = {
            name: self._local(str(value)) for name, value in self.document["services"][service]["environment"].items()
        }
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8", **named, **self.extra}

    def command(self, service: str) -> list[str]:
        """The service's command line, `stagebeam` being that of this interpreter."""
        program, *arguments = self.document["services"][service]["command"]
        assert program == "stagebeam"
        return [sys.executable, "-m", "orchestrator.cli", *arguments]

    def run(self, service: str, *command: str) -> str:
        """Run a service to its end (or another command in its place); returns stdout."""
        words = [sys.executable, "-m", "orchestrator.cli", *command] if command else self.command(service)
        done = subprocess.run(
            words,
            env=self.environment(service),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=25,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def key(self) -> str:
        """A fresh API key of the default project."""
        db = open_database(self.environment("api")["STAGEBEAM_DATABASE_URL"], pool_size=1)
        with db.write() as conn:
            token = create_key(conn, project_id="default", name="test", role="operator", now=time.time()).token
        db.close()
        return token

    def start(self, service: str) -> None:
        """Start a service; its output goes to a log beside the others."""
        with (self.folder / f"{service}.log").open("ab") as log:
            process = subprocess.Popen(
                [*wrapped(), *self.command(service)],
                env=self.environment(service),
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        SERVERS.add(process.pid)
        self.processes[service] = process

    def kill(self, service: str) -> None:
        """The process is gone from one moment to the next, as under the kernel's out-of-memory killer."""
        process = self.processes.pop(service)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Stop everything the way compose does: a signal, a grace period, a kill."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(25)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def logs(self) -> str:
        """The end of every log, for the message of a failure."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def _local(self, text: str) -> str:
        for named, local in self.addresses.items():
            text = text.replace(named, local)
        return text
