"""A private S3 server (moto) with a bucket for each test."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config

from storage.settings import Settings
from tests.services.processes import free_port, missing, server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Endpoint of one server for the session."""
    with private_s3(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@contextmanager
def private_s3(folder: Path) -> Iterator[str]:
    """Endpoint of a server on a free port until the block ends. It keeps its objects in memory."""
    program = Path(sys.executable).parent / "moto_server"
    if not program.exists():
        missing("moto[server]")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        with urllib.request.urlopen(endpoint, timeout=2) as response:
            return bool(response.status == 200)

    command = [str(program), "-H", "127.0.0.1", "-p", str(port)]
    with server(command, log=folder / "s3.log", ready=ready, timeout=40):
        yield endpoint


@pytest.fixture(scope="session")
def s3_client(s3_server: str) -> Any:
    """A plain boto3 client, to look at the bucket past our own code."""
    return boto3.client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id="testing-key",
        aws_secret_access_key="testing-secret",
        config=Config(s3={"addressing_style": "path"}),
    )


@pytest.fixture
def s3_settings(s3_server: str, s3_client: Any, tmp_path: Path) -> Settings:
    """Settings whose object store is an empty bucket that this test alone uses."""
    bucket = f"b{uuid4().hex}"
    s3_client.create_bucket(Bucket=bucket)
    return Settings(
        data_dir=tmp_path / "data",
        object_store=f"s3://{bucket}/some/prefix",
        s3_endpoint_url=s3_server,
        s3_region="us-east-1",
        s3_access_key_id="testing-key",  # type: ignore[arg-type]
        s3_secret_access_key="testing-secret",  # type: ignore[arg-type]
        s3_multipart_bytes=5 * 2**20,
    )
