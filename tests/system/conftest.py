from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.services.postgres import Postgres
from tests.services.processes import free_port, missing, server
from tests.system.composed import Composed, load

SECRETS = {
    "POSTGRES_PASSWORD": "pg-secret",
    "BROKER_PASSWORD": "broker-secret",
    "S3_ACCESS_KEY_ID": "s3-key",
    "S3_SECRET_ACCESS_KEY": "s3-secret",
    "STAGEBEAM_SECRET_KEY": "0123456789abcdef0123456789abcdef",
    "STAGEBEAM_MODEL": "scripted",
}


@pytest.fixture
def composed(postgres_server: Postgres, s3_server: str, tmp_path: Path) -> Iterator[Composed]:
    """Our services of compose.yaml on a native Postgres, a Redis started with the broker's own flags, and moto."""
    document = load(SECRETS)
    name = postgres_server.create("template1")
    postgres_server.execute("DO $$ BEGIN CREATE ROLE stagebeam LOGIN SUPERUSER; EXCEPTION WHEN OTHERS THEN END $$")
    broker, api = free_port(), free_port()
    addresses = {
        "@postgres:5432/stagebeam": f"@127.0.0.1:{postgres_server.port}/{name}",
        "@broker:6379": f"@127.0.0.1:{broker}",
        "http://objects:7070": s3_server,
        "s3://stagebeam": f"s3://{name}-objects",
        "0.0.0.0": "127.0.0.1",
        "8000": str(api),
    }
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        missing("redis-server")
        raise AssertionError
    flags = document["services"]["broker"]["command"][1:]
    command = [program, *flags, "--port", str(broker), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    with (
        redis.Redis(port=broker, password=SECRETS["BROKER_PASSWORD"]) as client,
        server(command, log=tmp_path / "broker.out", ready=lambda: bool(client.ping())),
    ):
        stack = Composed(document, addresses, tmp_path)
        yield stack
        stack.stop()
    postgres_server.drop(name)
