from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select, text

from reasoning.errors import BadInput
from storage import blobs, schema
from storage.database import open_database
from storage.tables import Base, Project


@pytest.fixture(params=["sqlite", "postgresql"])
def blank_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'blank.db'}"
    return str(request.getfixturevalue("blank_postgres_url"))


def test_a_blank_database_comes_up_equal_to_the_tables_and_a_second_upgrade_changes_nothing(blank_url: str):
    assert schema.current(blank_url) is None
    with pytest.raises(BadInput, match="stagebeam db upgrade"):
        schema.check(blank_url)

    assert schema.upgrade(blank_url) == schema.newest()
    schema.check(blank_url)
    assert schema.differences(blank_url) == []

    database = open_database(blank_url)
    with database.write() as conn:
        conn.execute(Project.__table__.update().values(name="renamed"))
    schema.upgrade(blank_url)
    with database.read() as conn:
        assert conn.execute(select(Project.__table__.c.id, Project.__table__.c.name)).all() == [("default", "renamed")]
    database.close()


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004", "0005"])
def test_a_database_of_each_revision_comes_up_with_what_it_holds(blank_url: str, revision: str):
    assert schema.upgrade(blank_url, revision) == revision
    database = open_database(blank_url)
    with database.write() as conn:
        conn.execute(text("INSERT INTO projects (id, name, created_at) VALUES ('second', 'second', 1)"))
        image = {"sha256": "a" * 64, "bytes": 5, "media_type": "image/png", "width": 3, "height": 2, "created_at": 4.0}
        columns = ", ".join(image)
        conn.execute(text(f"INSERT INTO blobs ({columns}) VALUES (:{', :'.join(image)})"), image)

    assert schema.upgrade(blank_url) == schema.newest()
    assert schema.differences(blank_url) == []
    with database.read() as conn:
        kept = [blobs.get(conn, project, "a" * 64) for project in ("default", "second")]
    assert [None if row is None else (row.bytes, row.width, row.bundle, row.created_at) for row in kept] == [
        (5, 3, None, 4.0),
        (5, 3, None, 4.0),
    ]
    database.close()


def test_models_alone_and_revisions_make_the_same_database(blank_url: str):
    database = open_database(blank_url)
    with database.write() as conn:
        Base.metadata.create_all(conn)
    database.close()
    assert schema.differences(blank_url) == []


def test_two_processes_may_upgrade_at_once(blank_url: str):
    command = [sys.executable, "-c", "import sys; from storage.schema import upgrade; print(upgrade(sys.argv[1]))"]
    both = [
        subprocess.Popen([*command, blank_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out.strip()) == (0, schema.newest()), err
    assert schema.differences(blank_url) == []


def test_a_database_of_a_newer_program_is_refused(database_url: str):
    database = open_database(database_url)
    with database.write() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    for act in (schema.upgrade, schema.check):
        with pytest.raises(BadInput, match="9999") as caught:
            act(database_url)
        assert caught.value.code == "schema_newer"


@pytest.mark.parametrize("url", ["sqlite:///x.db", "postgresql://host/name"])
def test_the_sql_can_be_had_without_a_database(url: str):
    script = schema.script(url)
    assert "CREATE TABLE queries" in script
    assert "INSERT INTO projects" in script
