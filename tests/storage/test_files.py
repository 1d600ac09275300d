from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from storage import access, files
from storage.database import Database


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
