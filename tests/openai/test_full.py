"""A disk that fills up, and a file whose job cannot be taken in yet: said clearly, nothing lost."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from orchestrator.finalize import finalize
from storage.database import open_database
from storage.errors import StoreFull
from tests.openai.conftest import wired
from tests.openai.wire import ENDPOINT, Wire, jsonl, line

MIB = 2**20


@contextmanager
def full_disk(room: int = MIB) -> Iterator[None]:
    """Files may not grow past `room` bytes in this process, as on a disk without more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_upload_that_does_not_fit_is_507_and_works_again_later(wire: Wire):
    client = wire.client()
    with full_disk(), pytest.raises(openai.InternalServerError) as error:
        client.files.create(file=bytes(3 * MIB), purpose="batch")
    assert (error.value.status_code, error.value.code) == (507, "storage_full")
    assert list(wire.objects.list()) == []
    assert client.files.create(file=bytes(3 * MIB), purpose="batch").bytes == 3 * MIB


@pytest.fixture
def postgres_wire(postgres_url: str, tmp_path: Path) -> Iterator[Wire]:
    """On Postgres the database has a disk of its own here."""
    database = open_database(postgres_url)
    with wired(database, tmp_path) as found:
        yield found
    database.close()


def test_a_job_waits_until_there_is_room_for_its_files(postgres_wire: Wire):
    wire = postgres_wire
    client, stack = wire.client(), wire.stack
    rows = [line(n, messages=[{"role": "user", "content": "why? " * 300}]) for n in range(6)]
    file = client.files.create(file=jsonl(*rows), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", extra_body={"search": {"trace": True}}
    )
    wire.ingest(batch.id)
    with stack.worker() as pipeline:
        while stack.job(batch.id).status == "running":
            stack.step(pipeline)
    assert stack.job(batch.id).status == "finalizing"
    with full_disk(32 * 1024), pytest.raises(StoreFull):
        finalize(wire.db, wire.objects, batch.id, stack.clock, stack.new_id)
    assert client.batches.retrieve(batch.id).status == "finalizing"
    stack.run(batch.id)
    done = client.batches.retrieve(batch.id)
    assert done.status == "completed"
    assert client.files.retrieve(done.output_file_id or "").bytes > 32 * 1024
