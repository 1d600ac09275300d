from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from storage import access, blobs, files
from storage.blobs import BlobRow
from storage.database import Database
from storage.objects import open_objects
from storage.settings import Settings
from storage.tables import Blob


def add(conn: Connection, file_id: str, now: float, **columns: Any) -> None:
    fixed = {"project_id": "default", "purpose": "batch", "filename": "in.jsonl", "bytes": 10}
    values: dict[str, Any] = {**fixed, "sha256": "s", "object_key": f"files/{file_id}", **columns}
    files.create(conn, id=file_id, now=now, **values)


def ids(rows: Any) -> list[str]:
    return [row.id for row in rows]


def test_files_are_paged_in_order_even_when_made_in_one_moment(database: Database):
    with database.write() as conn:
        for n in range(5):
            add(conn, f"file_{n}", now=float(n // 2))
        add(conn, "file_out", now=9.0, purpose="batch_output")
        access.create_project(conn, "other", "other", 0.0)
        add(conn, "file_other", now=1.0, project_id="other")

        first = files.list_page(conn, "default", purpose="batch", limit=2)
        second = files.list_page(conn, "default", purpose="batch", limit=2, after=first[-1].id)
        third = files.list_page(conn, "default", purpose="batch", limit=2, after=second[-1].id)
        assert [ids(first), ids(second), ids(third)] == [["file_4", "file_3"], ["file_2", "file_1"], ["file_0"]]
        oldest = files.list_page(conn, "default", newest_first=False, limit=3, after="file_1")
        assert ids(oldest) == ["file_2", "file_3", "file_4"]
        assert files.list_page(conn, "default", after="file_other") == ()


def test_another_project_sees_nothing_and_a_deleted_file_is_gone(database: Database):
    with database.write() as conn:
        access.create_project(conn, "other", "other", 0.0)
        add(conn, "file_1", now=1.0)
        assert files.get(conn, "other", "file_1") is None
        assert files.delete(conn, "other", "file_1", 2.0) is None
        assert files.stored_bytes(conn, "default") == 10
        deleted = files.delete(conn, "default", "file_1", 2.0)
        assert deleted is not None
        assert deleted.object_key == "files/file_1"
        assert files.get(conn, "default", "file_1") is None
        assert files.delete(conn, "default", "file_1", 3.0) is None
        assert files.list_page(conn, "default") == []
        assert files.stored_bytes(conn, "default") == 0


def test_the_same_content_is_found_and_shared_objects_are_known(database: Database):
    with database.write() as conn:
        add(conn, "file_1", now=1.0, sha256="same", object_key="shared")
        add(conn, "file_2", now=2.0, sha256="same", object_key="shared")
        found = files.find_by_content(conn, "default", "same", "batch")
        assert found is not None
        assert found.id == "file_2"
        assert files.find_by_content(conn, "default", "same", "batch_output") is None
        files.delete(conn, "default", "file_2", 3.0)
        assert files.in_use(conn, ["shared", "elsewhere"]) == {"shared"}
        files.delete(conn, "default", "file_1", 3.0)
        assert files.in_use(conn, ["shared"]) == set()


def test_files_expire(database: Database):
    with database.write() as conn:
        add(conn, "file_1", now=1.0, expires_at=5.0)
        add(conn, "file_2", now=1.0)
        assert ids(files.expired(conn, 4.9, 10)) == []
        assert ids(files.expired(conn, 5.0, 10)) == ["file_1"]


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    return open_objects(Settings(data_dir=tmp_path))


def test_an_image_is_stored_once_however_often_it_comes(database: Database, folder: Any):
    with database.write() as conn:
        name = blobs.put_blob(conn, folder, b"pixels", "image/png", 2, 3, 1.0)
        assert blobs.put_blob(conn, folder, b"pixels", "image/jpeg", 9, 9, 2.0) == name
        row = blobs.get(conn, name)
        assert row is not None
        assert (row.bytes, row.media_type, row.width, row.height, row.created_at) == (6, "image/png", 2, 3, 1.0)
        assert conn.execute(select(func.count()).select_from(Blob.__table__)).scalar_one() == 1
    assert [entry.size for entry in folder.list("blobs/")] == [6]
    assert blobs.read(folder, name) == b"pixels"


def test_many_images_at_once(database: Database, folder: Any):
    data = [b"%d" % n for n in range(20)]
    group = folder.group()
    names = [hashlib.sha256(image).hexdigest() for image in data]
    for name, image in zip(names, data, strict=True):
        blobs.upload(group, name, image, "image/png")
    group.keep()
    assert all(folder.exists(f"blobs/{name[:2]}/{name}") for name in names)
    rows = [BlobRow(name, 1, "image/png", 1, 1) for name in names]
    with database.write() as conn:
        blobs.record(conn, rows[:10], 1.0)
        assert blobs.known(conn, names) == set(names[:10])
        blobs.record(conn, rows, 2.0)
        blobs.record(conn, [], 2.0)
        assert blobs.known(conn, [*names, "unknown"]) == set(names)
