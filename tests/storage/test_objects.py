from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import example, given
from hypothesis import strategies as st

from reasoning.errors import BadInput, Transient
from storage.objects import ObjectStore, StoreFull, keys, open_objects
from storage.objects.local import LocalStore
from storage.objects.protocol import pieces
from storage.objects.syncing import FEW, sync
from storage.settings import Settings
from tests.services.processes import free_port

MIB = 2**20


def lines(count: int) -> Iterator[bytes]:
    """Lines of eight bytes, a thousand a piece."""
    return (b"".join(b"%07d\n" % n for n in range(at, at + 1000)) for at in range(0, count, 1000))


def keys_of(objects: ObjectStore, prefix: str = "") -> list[str]:
    return [entry.key for entry in objects.list(prefix)]


@pytest.mark.parametrize("data", [b"", b"\0\xff text"])
def test_bytes_come_back(objects: ObjectStore, data: bytes):
    assert objects.put("a/b c/ü.bin", data, media_type="image/png")
    assert objects.read("a/b c/ü.bin") == data
    assert objects.size("a/b c/ü.bin") == len(data)
    assert objects.exists("a/b c/ü.bin")
    with objects.open("a/b c/ü.bin") as stream:
        assert stream.read() == data


def test_a_second_put_replaces_and_one_that_must_be_first_does_not(objects: ObjectStore):
    objects.put("k", b"first")
    assert objects.put("k", b"second") is True
    assert objects.put("k", b"third", if_absent=True) is False
    assert objects.read("k") == b"second"
    assert objects.put("new", b"once", if_absent=True) is True


def test_of_many_first_writers_one_wins_and_all_agree(objects: ObjectStore):
    with ThreadPoolExecutor(6) as threads:
        won = list(threads.map(lambda n: objects.put("race", b"%d" % n, if_absent=True), range(12)))
    assert won.count(True) == 1
    assert objects.read("race") == b"%d" % won.index(True)


def test_a_group_is_there_when_it_is_kept_and_takes_nothing_away(objects: ObjectStore):
    objects.put("g/0", b"before")
    group = objects.group()
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda n: group.put(f"g/{n // 2}", b"%d" % (n // 2)), range(20)))
    group.keep()
    assert [objects.read(f"g/{number}") for number in range(10)] == [b"before", *(b"%d" % n for n in range(1, 10))]
    group.keep()
    group.put("g/11", b"more")
    group.keep()
    assert objects.read("g/11") == b"more"


def test_what_is_not_there_is_file_not_found(objects: ObjectStore):
    for act in (objects.open, objects.read, objects.size):
        with pytest.raises(FileNotFoundError):
            act("missing/key")
    assert not objects.exists("missing/key")
    objects.delete("missing/key")
    objects.put("folder/file", b"x")
    for act in (objects.open, objects.read, objects.size):
        with pytest.raises(FileNotFoundError):
            act("folder")
    with pytest.raises(FileNotFoundError):
        objects.read("folder/file/below")
    objects.delete("folder")
    assert objects.exists("folder/file")


@pytest.mark.parametrize(("start", "end"), [(0, 4), (3, None), (2, 99), (9, 10), (10, None), (50, 60), (4, 4), (5, 2)])
def test_ranges_are_like_slices(objects: ObjectStore, start: int, end: int | None):
    objects.put("digits", b"0123456789")
    assert objects.read("digits", start, end) == b"0123456789"[start:end]


@pytest.mark.parametrize("kind", ["bytes", "stream", "pieces"])
def test_large_objects_of_every_kind_of_source(objects: ObjectStore, kind: str):
    body = b"".join(lines(1_500_000))  # 12 MB: three parts on S3
    source = {"bytes": lambda: body, "stream": lambda: io.BytesIO(body), "pieces": lambda: lines(1_500_000)}[kind]()
    objects.put("large", source)
    assert objects.size("large") == len(body)
    with objects.open("large") as stream:
        assert hashlib.file_digest(stream, "sha256").digest() == hashlib.sha256(body).digest()
        stream.seek(8_000_000)
        assert stream.readline() == b"1000000\n"
        assert stream.seek(-8, os.SEEK_END) == len(body) - 8
        assert list(stream) == [b"1499999\n"]
    assert objects.read("large", 8 * 1_000_001, 8 * 1_000_002) == b"1000001\n"
    assert objects.put("large", lines(1_000_000), if_absent=True) is False


@pytest.mark.parametrize("amount", [1000, 800_000])
def test_a_source_that_fails_leaves_nothing_behind(objects: ObjectStore, amount: int):
    def broken() -> Iterator[bytes]:
        yield from lines(amount)
        raise ConnectionResetError("the client went away")

    with pytest.raises(ConnectionResetError):
        objects.put("half", broken())
    assert keys_of(objects) == []


def test_unfinished_parts_are_given_up(s3_settings: Settings, s3_client: Any):
    def broken() -> Iterator[bytes]:
        yield bytes(12 * MIB)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        open_objects(s3_settings).put("half", broken())
    bucket = s3_settings.object_store.split("/")[2]
    assert not s3_client.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_listing_is_by_prefix_and_in_key_order(objects: ObjectStore):
    names = ["a/b", "a.b", "a/c/d", "a/bb", "b", "a-b", "a/B"]
    for name in names:
        objects.put(name, name.encode())
    assert keys_of(objects) == sorted(names)
    assert keys_of(objects, "a/") == ["a/B", "a/b", "a/bb", "a/c/d"]
    assert keys_of(objects, "a/b") == ["a/b", "a/bb"]
    assert keys_of(objects, "none/such") == []
    entry = next(objects.list("a/c"))
    assert (entry.key, entry.size) == ("a/c/d", 5)
    assert entry.modified_at > 1.7e9
    objects.delete("a/b")
    assert keys_of(objects, "a/b") == ["a/bb"]


def test_a_download_address_works_where_there_is_one(objects: ObjectStore, objects_settings: Settings):
    objects.put("results.jsonl", b"{}\n")
    address = objects.url("results.jsonl", 60, filename='a "b"\r\nX: ü.jsonl')
    if not objects_settings.object_store:
        assert address is None
        return
    assert address is not None
    with urllib.request.urlopen(address) as response:
        assert response.read() == b"{}\n"
        assert "X" not in response.headers
        assert response.headers["Content-Disposition"].startswith("attachment;")


def test_check_says_what_the_store_can_do_and_leaves_no_trace(objects: ObjectStore, objects_settings: Settings):
    assert objects.check() == {"conditional_put": True, "urls": bool(objects_settings.object_store)}
    assert keys_of(objects) == []


BAD_KEYS = ["", "/", "/etc/passwd", "..", "a/../b", "a/..", "./a", "a//b", "a/", "a\\b", "a\0b", "a\nb", "x" * 251]
BAD_KEYS += ["/".join(["x" * 99] * 10), "\ud800", "a\u202eb"]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_keys_that_could_leave_the_store_are_refused(objects: ObjectStore, key: str):
    with pytest.raises(BadInput) as caught:
        objects.put(key, b"x")
    assert caught.value.code == "invalid_key"
    with pytest.raises(BadInput):
        objects.read(key)


def test_a_folder_says_that_it_keeps_no_file_and_folder_of_one_name(tmp_path: Path):
    store = open_objects(Settings(data_dir=tmp_path))
    store.put("a/b", b"x")
    for key in ("a", "a/b/c"):
        with pytest.raises(BadInput, match="use another key"):
            store.put(key, b"y")


@given(st.text(alphabet=st.sampled_from("ab./\\ \0-é"), max_size=12))
@example("a/.../b")
def test_an_accepted_key_stays_inside(key: str):
    root = Path("/root/of/store")
    try:
        path = root / keys.checked(key)
    except BadInput:
        return
    assert Path(os.path.normpath(path)) == path
    assert path.is_relative_to(root)
    assert path != root


def test_a_group_that_is_dropped_leaves_nothing_and_one_that_is_kept_no_second_copy(tmp_path: Path):
    store = LocalStore(tmp_path)
    group = store.group()
    group.put("a/b", b"1")
    assert not store.exists("a/b")
    group.drop()
    group.keep()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    group.put("a/b", b"2")
    group.keep()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["b"]


def test_every_file_is_on_the_disk_before_it_has_its_name_and_its_folders_are_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What a power cut leaves: a name with no bytes behind it would be taken for the image of that hash."""
    synced: list[tuple[str, set[str]]] = []

    def names() -> set[str]:
        return {path.name for path in tmp_path.rglob("*") if path.is_file() and ".unfinished" not in path.parts}

    def fsync(number: int) -> None:
        synced.append((Path(f"/proc/self/fd/{number}").readlink().relative_to(tmp_path).as_posix(), names()))

    store = LocalStore(tmp_path)
    monkeypatch.setattr("storage.objects.syncing.os.fsync", fsync)
    group = store.group()
    group.put("blobs/aa/1", b"1")
    group.put("blobs/ab/2", b"2")
    assert synced == []
    group.keep()
    store.put("k/x", b"3")
    files = [seen for place, seen in synced if place.startswith(".unfinished/")]
    assert files == [set(), set(), {"1", "2"}]
    folders = {place: seen for place, seen in synced if not place.startswith(".unfinished/")}
    assert set(folders) == {".", "blobs", "blobs/aa", "blobs/ab", "k"}
    assert (folders["blobs/ab"], folders["k"]) == ({"1", "2"}, {"1", "2", "x"})
    at_once: list[set[str]] = []

    def syncfs(_number: int) -> int:
        at_once.append(names())
        return 0

    monkeypatch.setattr("storage.objects.syncing._syncfs", lambda: syncfs)
    synced.clear()
    for number in range(10, 20):
        group.put(f"many/{number}/{number}", b"x")
    group.keep()
    assert synced == []
    assert at_once == [{"1", "2", "x"}, {"1", "2", "x", *map(str, range(10, 20))}]


def test_many_files_are_synced_at_once(tmp_path: Path):
    paths = [tmp_path / str(number) for number in range(FEW + 1)]
    for path in paths:
        path.write_bytes(b"x")
    sync(paths)
    sync([tmp_path / "gone", *paths, tmp_path])


def test_what_a_process_that_died_was_writing_is_removed_after_a_day(tmp_path: Path):
    LocalStore(tmp_path).put("k", b"v")
    old, new = tmp_path / ".unfinished" / "old", tmp_path / ".unfinished" / "new"
    old.write_bytes(b"x"), new.write_bytes(b"x")
    os.utime(old, (1.0, 1.0))
    LocalStore(tmp_path).put("k", b"v")
    assert (old.exists(), new.exists()) == (False, True)


def test_folders_go_with_their_last_file_also_while_others_write_there(tmp_path: Path):
    store = LocalStore(tmp_path)

    def put_and_delete(number: int) -> None:
        store.put(f"a/b/{number}", b"x")
        store.delete(f"a/b/{number}")

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(put_and_delete, range(60)))
    assert [path.name for path in tmp_path.iterdir()] == [".unfinished"]


def test_unfinished_writes_cannot_be_named(tmp_path: Path):
    store = open_objects(Settings(data_dir=tmp_path))
    with pytest.raises(BadInput):
        store.read(".unfinished/x")


@given(st.lists(st.binary(max_size=20)), st.integers(1, 16))
def test_pieces_have_the_size_asked_for(parts: list[bytes], size: int):
    whole = b"".join(parts)
    for data in (parts, whole, io.BytesIO(whole)):
        cut = list(pieces(data, size))
        assert b"".join(cut) == whole
        assert all(len(piece) == size for piece in cut[:-1])
        assert all(0 < len(piece) <= size for piece in cut[-1:])


def test_keys_of_things():
    digest = hashlib.sha256(b"").hexdigest()
    assert keys.blob(digest) == f"blobs/e3/{digest}"
    assert keys.job_file("job_1", "traces/") == "jobs/job_1/traces/"
    assert keys.job_file("job_1", "output.jsonl") == "jobs/job_1/output.jsonl"
    for bad in ("E3" + digest[2:], "../../etc/passwd", digest + "\n"):
        with pytest.raises(BadInput):
            keys.blob(bad)
    with pytest.raises(BadInput):
        keys.job_file("../x", "output.jsonl")


def test_memory_stays_flat_however_long_the_stream(objects_settings: Settings):
    """A 60 MiB stream in and out in a process of its own; a part and its copies may be held, not the object."""
    code = """
import resource, sys
from storage.objects import open_objects
from storage.settings import Settings
store = open_objects(Settings.model_validate_json(sys.stdin.read()))
store.put("warm", (bytes(1 << 20) for _ in range(11)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.put("long", (bytes(1 << 20) for _ in range(60)))
with store.open("long") as stream:
    assert sum(len(block) for block in iter(lambda: stream.read(1 << 20), b"")) == 60 << 20
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    plain = objects_settings.model_dump(mode="json")
    for name in ("s3_access_key_id", "s3_secret_access_key"):
        secret = getattr(objects_settings, name)
        plain[name] = secret.get_secret_value() if secret else None
    process = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(plain), capture_output=True, text=True, check=False, timeout=50
    )
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) < 25  # MiB


def test_a_full_disk_is_said_clearly(tmp_path: Path):
    resource = pytest.importorskip("resource")
    store = open_objects(Settings(data_dir=tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(StoreFull, match="no room left"):
            store.put("big", bytes(3 * MIB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert keys_of(store) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_object_replaced_while_it_is_read_is_not_mixed(s3_settings: Settings):
    store = open_objects(s3_settings)
    store.put("k", b"a" * MIB)
    with store.open("k") as stream:
        store.put("k", b"b" * MIB)
        with pytest.raises(Transient, match="replaced"):
            stream.read()


def test_a_broken_connection_is_taken_up_where_it_broke(s3_settings: Settings):
    store = open_objects(s3_settings)
    store.put("k", lines(100_000))
    with store.open("k") as stream:
        assert stream.readline() == b"0000000\n"
        stream.raw._body._raw_stream.close()  # type: ignore[attr-defined]
        assert sum(1 for _ in stream) == 99_999


def test_a_missing_bucket_and_a_dead_server_say_what_to_check(s3_settings: Settings):
    nowhere = s3_settings.model_copy(update={"object_store": "s3://no-such-bucket-here"})
    with pytest.raises(BadInput, match="no-such-bucket-here"):
        open_objects(nowhere).check()
    with pytest.raises(Transient):
        open_objects(nowhere).put("k", b"x")
    dead = s3_settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{free_port()}"})
    store = open_objects(dead)
    store._client.meta.config.retries["total_max_attempts"] = 1  # type: ignore[attr-defined]
    with pytest.raises(Transient, match="cannot be reached"):
        store.exists("k")


class Overwriting:
    """A server that ignores conditions, or refuses them: both kinds exist."""

    def __init__(self, client: Any, *, refuses: bool) -> None:
        self._client = client
        self._refuses = refuses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_object(self, **parameters: Any) -> Any:
        if parameters.pop("IfNoneMatch", None) and self._refuses:
            raise ClientError({"Error": {"Code": "NotImplemented"}}, "PutObject")
        return self._client.put_object(**parameters)


@pytest.mark.parametrize("refuses", [True, False])
def test_servers_without_conditions_are_found_out_and_still_serve(s3_settings: Settings, refuses: bool):
    store: Any = open_objects(s3_settings)
    store._client = Overwriting(store._client, refuses=refuses)
    assert store.check()["conditional_put"] is False
    assert store.put("k", b"first", if_absent=True) is True
    assert store.put("k", b"second", if_absent=True) is False
    assert store.read("k") == b"first"


@pytest.mark.parametrize("address", ["http://host/x", "s3://", "gs://bucket"])
def test_other_addresses_are_refused(address: str, tmp_path: Path):
    with pytest.raises(BadInput, match="s3://bucket/prefix"):
        open_objects(Settings(data_dir=tmp_path, object_store=address))
