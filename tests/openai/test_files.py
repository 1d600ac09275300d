"""Upload, list, show, download and delete, as the client does them (conformance items 1, 8, 9, 11)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from orchestrator.api.openai.downloads import Span, span_of
from orchestrator.api.openai.multipart import boundary_of, read_parts
from reasoning.errors import BadInput
from storage.objects import open_objects
from tests.openai.wire import Wire, jsonl, line, served, settings_of
from tests.waiting import wait_until

TEXT = jsonl(line(1), line(2))


def test_every_way_of_naming_a_file(wire: Wire, tmp_path: Path):
    client = wire.client()
    path = tmp_path / "input.jsonl"
    path.write_bytes(TEXT)
    with path.open("rb") as handle:
        by_handle = client.files.create(file=handle, purpose="batch")
    assert (by_handle.filename, by_handle.bytes, by_handle.status) == ("input.jsonl", len(TEXT), "processed")
    assert by_handle.id.startswith("file-")
    assert client.files.create(file=path, purpose="batch").filename == "input.jsonl"
    assert client.files.create(file=("a.jsonl", TEXT), purpose="batch").filename == "a.jsonl"
    assert client.files.create(file=TEXT, purpose="batch").filename == "upload"
    assert client.files.create(file=io.BytesIO(TEXT), purpose="batch").filename == "upload"
    expiring = client.files.create(
        file=("b.jsonl", TEXT), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert expiring.expires_at == expiring.created_at + 3600
    assert client.files.content(expiring.id).content == TEXT


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"file": ("a.jsonl", b"")}, "file"),
        ({"purpose": "assistants"}, "purpose"),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, "expires_after[seconds]"),
        ({"expires_after": {"anchor": "last_used", "seconds": 3600}}, "expires_after[anchor]"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_leaves_nothing(wire: Wire, given: dict[str, Any], param: str):
    client = wire.client()
    with pytest.raises(openai.BadRequestError) as error:
        client.files.create(**{"file": ("a.jsonl", TEXT), "purpose": "batch", **given})
    assert error.value.param == param
    assert list(wire.objects.list()) == []
    assert client.files.list().data == []


def test_one_byte_above_the_limit_is_refused_and_leaves_nothing(sqlite_database: Any, tmp_path: Path):
    """The limit is that of the file, whatever form it comes in."""
    settings = settings_of(tmp_path / "data", max_upload_bytes=100_000)
    objects = open_objects(settings)
    with served(settings, sqlite_database, objects) as url:
        client = Wire(url, settings, sqlite_database, objects).client()
        assert client.files.create(file=b"x" * 100_000, purpose="batch").bytes == 100_000
        assert httpx.post(f"{url}/api/files", content=b"y" * 100_000, timeout=30).status_code == 200
        for size in (100_001, 1_000_000):
            with pytest.raises(openai.APIStatusError) as error:
                client.files.create(file=b"x" * size, purpose="batch")
            assert (error.value.status_code, error.value.code) == (413, "body_too_large")
            assert httpx.post(f"{url}/api/files", content=b"y" * size, timeout=30).status_code == 413
        client.close()
    assert len(list(objects.list())) == 2


def test_parts_may_come_in_any_order(wire: Wire):
    boundary = "x1"
    parts = [
        'content-disposition: form-data; name="file"; filename="../../ümläut\\a.jsonl"\r\n\r\n' + TEXT.decode(),
        'content-disposition: form-data; name="purpose"\r\n\r\nbatch',
    ]
    body = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts) + f"--{boundary}--\r\n"
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    answer = httpx.post(f"{wire.url}/v1/files", content=body.encode(), headers=headers, timeout=30)
    assert answer.status_code == 200
    assert answer.json()["filename"] == "a.jsonl"


def test_a_client_that_stops_mid_upload_leaves_nothing_behind(wire: Wire):
    host, port = "127.0.0.1", wire.settings.port
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-length: 10000000\r\n"
        'content-type: multipart/form-data; boundary=b\r\n\r\n--b\r\ncontent-disposition: form-data; name="file"; '
        'filename="a.jsonl"\r\n\r\n'
    )
    root = wire.settings.data_dir / "objects"
    with socket.create_connection((host, port)) as connection:
        connection.sendall(head.encode() + b"x" * 500_000)
        wait_until(lambda: [path for path in root.rglob("*") if path.is_file()], what="the upload has begun")
    wait_until(lambda: not [path for path in root.rglob("*") if path.is_file()], what="nothing is left")
    assert wire.client().files.list().data == []


def test_the_same_bytes_sent_again_are_the_same_file(any_wire: Wire):
    client = any_wire.client()
    first = client.files.create(file=("a.jsonl", TEXT), purpose="batch")
    assert client.files.create(file=("a.jsonl", TEXT), purpose="batch").id == first.id
    named = client.files.create(file=("b.jsonl", TEXT), purpose="batch")
    assert named.id != first.id
    assert len(list(any_wire.objects.list("files"))) == 1, "one object for both"
    client.files.delete(first.id)
    assert client.files.content(named.id).content == TEXT
    client.files.delete(named.id)
    assert list(any_wire.objects.list("files")) == []


def test_lists_page_by_the_last_id_even_when_it_was_deleted(any_wire: Wire):
    client = any_wire.client()
    made = [client.files.create(file=(f"{n}.jsonl", TEXT), purpose="batch").id for n in range(5)]
    page = client.files.list(limit=2)
    assert [item.id for item in page] == made[::-1]
    first = client.files.list(limit=2)
    client.files.delete(first.data[-1].id)
    assert [item.id for item in client.files.list(limit=2, after=first.data[-1].id)] == made[2::-1]
    assert [item.id for item in client.files.list(order="asc", limit=1).data] == made[:1]
    assert client.files.list(purpose="batch_output").data == []
    assert client.files.list(after="file-unknown").data == []
    with pytest.raises(openai.UnprocessableEntityError):
        client.files.list(limit=0)


def test_deleted_expired_and_other_peoples_files_are_not_there(wire: Wire):
    mine, other = wire.client(wire.key("one")), wire.client(wire.key("two"))
    file = mine.files.create(file=TEXT, purpose="batch")
    for call in (other.files.retrieve, other.files.content, other.files.delete):
        with pytest.raises(openai.NotFoundError) as error:
            call(file.id)
        assert error.value.code == "not_found"
    assert mine.files.delete(file.id).deleted
    for call in (mine.files.retrieve, mine.files.content, mine.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(file.id)


def test_content_by_range_and_stream(wire: Wire):
    client = wire.client()
    data = bytes(range(256)) * 9000
    file = client.files.create(file=data, purpose="batch")
    part = client.files.content(file.id, extra_headers={"Range": "bytes=100-299"})
    assert part.response.status_code == 206
    assert part.content == data[100:300]
    assert part.response.headers["content-range"] == f"bytes 100-299/{len(data)}"
    with client.files.with_streaming_response.content(file.id) as response:
        assert hashlib.sha256(b"".join(response.iter_bytes())).digest() == hashlib.sha256(data).digest()
    with pytest.raises(openai.APIStatusError) as error:
        client.files.content(file.id, extra_headers={"Range": f"bytes={len(data)}-"})
    assert error.value.status_code == 416


def test_large_files_are_handed_out_by_the_s3_server(sqlite_database: Any, s3_settings: Any, tmp_path: Path):
    settings = settings_of(
        tmp_path / "data",
        redirect_downloads=True,
        **{name: getattr(s3_settings, name) for name in s3_settings.model_fields_set - {"data_dir"}},
    )
    objects = open_objects(settings)
    data = b"0123456789abcdef" * 2**20 + b"end"
    with served(settings, sqlite_database, objects) as url:
        client = Wire(url, settings, sqlite_database, objects).client()
        file = client.files.create(file=data, purpose="batch")
        plain = httpx.get(f"{url}/v1/files/{file.id}/content", follow_redirects=False, timeout=30)
        assert plain.status_code == 307
        assert plain.headers["location"].startswith(settings.s3_endpoint_url)
        head = httpx.head(f"{url}/v1/files/{file.id}/content", follow_redirects=False, timeout=30)
        assert (head.status_code, head.content) == (200, b"")
        assert (head.headers["content-length"], head.headers["accept-ranges"]) == (str(len(data)), "bytes")
        part = httpx.head(f"{url}/v1/files/{file.id}/content", headers={"Range": "bytes=-3"}, timeout=30)
        assert (part.status_code, part.headers["content-range"]) == (
            206,
            f"bytes {len(data) - 3}-{len(data) - 1}/{len(data)}",
        )
        small = client.files.create(file=TEXT, purpose="batch").id
        for path in (f"/v1/files/{small}/content", f"/api/files/{small}/content"):
            seen, got = httpx.head(f"{url}{path}", timeout=30), httpx.get(f"{url}{path}", timeout=30)
            assert (seen.status_code, seen.content, seen.headers["content-length"]) == (200, b"", str(len(TEXT)))
            assert {**seen.headers, "date": "", "x-request-id": ""} == {**got.headers, "date": "", "x-request-id": ""}
            assert got.content == TEXT
        assert httpx.head(f"{url}/v1/files/file-none/content", timeout=30).status_code == 404
        client.close()
        with openai.OpenAI(base_url=f"{url}/v1", api_key="x") as follower:
            assert follower.files.content(file.id).content == data


@pytest.mark.parametrize(
    ("header", "span"),
    [(None, None), ("bytes=0-", Span(0, 10)), ("bytes=-3", Span(7, 10)), ("bytes=2-2", Span(2, 3)),
     ("bytes=5-99", Span(5, 10)), ("bytes=-99", Span(0, 10)), ("bytes=3-1", None), ("items=0-1", None),
     ("bytes=0-1,3-4", None), ("bytes=-", None),
     (f"bytes=0-{'9' * 5000}", None), ("bytes=٣-", None)],
)  # fmt: skip
def test_ranges(header: str | None, span: Span | None):
    assert span_of(header, 10) == span


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_forms_read_the_same_however_they_arrive(size: int):
    value = b"\r\n--b\r\nnot a boundary\r\n--".replace(b"--b", b"--c")
    body = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + value
    body += b'\r\n--b\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\n\r\n--b--\r\n'
    chunks = iter([body[at : at + size] for at in range(0, len(body), size)])
    found = [(part.name, part.filename, b"".join(part.chunks)) for part in read_parts(chunks, b"b")]
    assert found == [("a", None, value), ("f", "n", b"")]


def test_forms_that_are_cut_off_or_none_at_all():
    with pytest.raises(BadInput, match="last boundary"):
        list(read_parts(iter([b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nxy']), b"b"))
    with pytest.raises(BadInput, match="form-data"):
        boundary_of("application/json")


def test_many_uploads_at_once(any_wire: Wire):
    client = any_wire.client()
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: ids.append(client.files.create(file=(f"{n}", TEXT), purpose="batch").id))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 8


def test_slow_uploads_do_not_keep_others_waiting(wire: Wire):
    """More senders that stall than the server has worker threads, and it still answers."""
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: 127.0.0.1:{wire.settings.port}\r\ncontent-length: 1000\r\n"
        "content-type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(45):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", wire.settings.port)))
            connection.sendall(head.encode())
        client = wire.client()
        assert client.batches.list().data == []
        assert client.files.create(file=TEXT, purpose="batch").bytes == len(TEXT)


def test_an_expiry_in_another_form_is_refused_and_not_passed_over(wire: Wire):
    fields = {"purpose": "batch", "expires_after": '{"anchor": "created_at", "seconds": 3600}'}
    answer = httpx.post(f"{wire.url}/v1/files", data=fields, files={"file": ("a.jsonl", TEXT)}, timeout=30)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "expires_after"
    assert "expires_after[seconds]" in error["message"]
    assert list(wire.objects.list()) == []
