"""The small parts: images kept in memory, messages sent later, side threads that go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from hashlib import sha256

import pytest

from reasoning.errors import Transient
from storage import blobs
from storage.database import Database
from storage.objects import ObjectStore, keys
from storage.settings import Settings
from tests.waiting import wait_until
from workers.images import StoredImages
from workers.later import Later
from workers.periodic import Periodic
from workers.publish import Wakeup
from workers.run import engine_options, served_model, worker_id


def stored(database: Database, objects: ObjectStore, data: bytes) -> str:
    digest = sha256(data).hexdigest()
    objects.put(keys.blob(digest), data)
    with database.write() as conn:
        blobs.record(conn, "p", [blobs.BlobRow(digest, len(data), "image/png", 1, 1)], 0.0)
    return digest


def test_images_are_read_once_and_kept_within_the_limit(database: Database, objects: ObjectStore) -> None:
    hashes = [stored(database, objects, bytes([number]) * 10) for number in range(3)]
    images = StoredImages(database, objects, cache_bytes=20)
    assert [images(each) for each in hashes] == [bytes([number]) * 10 for number in range(3)]
    for each in hashes:
        objects.delete(keys.blob(each))
    assert images(hashes[2]) == b"\x02" * 10
    assert images(hashes[1]) == b"\x01" * 10
    with pytest.raises(KeyError):
        images(hashes[0])


def test_an_image_larger_than_the_cache_is_read_each_time(database: Database, objects: ObjectStore) -> None:
    digest = stored(database, objects, b"x" * 30)
    images = StoredImages(database, objects, cache_bytes=20)
    assert images(digest) == images(digest) == b"x" * 30


def wakeup(queue: str) -> Wakeup:
    return Wakeup("task", {}, queue, 0)


def test_messages_go_out_when_they_are_due_and_the_rest_at_the_end() -> None:
    sent: list[str] = []
    later = Later(lambda wakeups: sent.extend(item.queue for item in wakeups))
    later.add(wakeup("at the end"), 1000.0)
    later.add(wakeup("soon"), 0.05)
    later.add(wakeup("now"), 0.0)
    wait_until(lambda: sent == ["now", "soon"])
    later.close()
    assert sent == ["now", "soon", "at the end"]


def test_a_broker_that_is_away_does_not_end_the_sender() -> None:
    tried: list[str] = []

    def send(wakeups: Iterable[Wakeup]) -> None:
        tried.extend(item.queue for item in wakeups)
        raise Transient("the broker is away")

    later = Later(send)
    for name in ("first", "second"):
        later.add(wakeup(name), 0.0)
        wait_until(lambda name=name: tried[-1:] == [name])
    later.close()


@pytest.mark.parametrize("error", [Transient("away"), RuntimeError("a bug")])
def test_a_side_thread_goes_on_after_an_error(error: Exception) -> None:
    rounds = threading.Semaphore(0)

    def action() -> None:
        rounds.release()
        raise error

    side = Periodic("test", 0.01, action)
    for _ in range(3):
        assert rounds.acquire(timeout=10)
    side.close()


def test_a_worker_is_named_for_one_life() -> None:
    now = time.time()
    assert worker_id("gpu0", now).startswith("gpu0@")
    assert worker_id("", now) != worker_id("", now + 0.001)


def test_the_settings_of_an_engine_come_from_those_of_the_worker() -> None:
    scripted = Settings(model="scripted:crash=0.1", slots=3, engine_options="labels=false")
    assert (served_model(scripted.model), engine_options(scripted)) == ("scripted", {"slots": 3, "labels": "false"})
    local = Settings(model="some/model", device="cpu", engine_options='{"rows": 8}')
    assert served_model(local.model) == "some/model"
    assert engine_options(local) == {"slots": 64, "device": "cpu", "dtype": "auto", "rows": 8}
    assert engine_options(Settings(model="openai:http://h/v1#m")) == {"slots": 64}
