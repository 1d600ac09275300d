from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from reasoning.errors import BadInput, InvariantBroken, Transient
from storage.database import Database, any_of, insert_ignore, open_database
from storage.errors import Conflict
from storage.tables import Blob, Job, Project
from tests.services.processes import free_port

PROJECTS = Project.__table__


def named(conn: Connection, project_id: str = "default") -> str:
    return str(conn.execute(select(PROJECTS.c.name).where(PROJECTS.c.id == project_id)).scalar_one())


def rename(conn: Connection, name: str) -> None:
    conn.execute(update(PROJECTS).values(name=name))


def test_a_write_commits_at_its_end_and_an_error_takes_all_of_it_back(database: Database):
    with database.write() as conn:
        rename(conn, "kept")

    with pytest.raises(ZeroDivisionError), database.write() as conn:  # noqa: PT012 - the error must come in the block
        rename(conn, "lost")
        raise ZeroDivisionError
    with database.read() as conn:
        assert named(conn) == "kept"


def test_a_read_refuses_to_write(database: Database):
    with pytest.raises(DBAPIError), database.read() as conn:
        rename(conn, "never")
    with database.write() as conn:
        assert named(conn) == "default"


def test_json_of_every_kind_comes_back_as_it_was(database: Database):
    value = {"text": 'ü\u2028\0"', "deep": [{"n": 2**63 - 1, "x": 0.1, "none": None, "yes": True}], "empty": {}}
    with database.write() as conn:
        conn.execute(update(PROJECTS).values(limits=value))
    with database.read() as conn:
        assert conn.execute(select(PROJECTS.c.limits)).scalar_one() == value


def test_inserting_what_is_there_changes_nothing_and_tells_what_was_new(database: Database):
    rows = [{"id": name, "name": "second", "created_at": 1.0} for name in ("default", "a", "b")]
    with database.write() as conn:
        inserted = conn.execute(insert_ignore(PROJECTS, conn).returning(PROJECTS.c.id), rows)
        assert {row.id for row in inserted} == {"a", "b"}
        assert named(conn) == "default"


def test_any_of_takes_any_number_of_ids_of_either_kind(database: Database):
    blobs = Blob.__table__
    rows = [
        {
            "sha256": f"{n:064x}",
            "project_id": "p",
            "bytes": n,
            "media_type": "m",
            "width": 1,
            "height": 1,
            "created_at": 0.0,
        }
        for n in range(40)
    ]
    with database.write() as conn:
        conn.execute(insert_ignore(blobs, conn), rows)
    with database.read() as conn:
        count = select(func.count()).select_from(blobs)
        assert conn.execute(count.where(any_of(blobs.c.bytes, range(5, 70_000)))).scalar_one() == 35
        assert conn.execute(count.where(any_of(blobs.c.sha256, [f"{3:064x}", "x", "'"]))).scalar_one() == 1
        assert conn.execute(count.where(any_of(blobs.c.sha256, []))).scalar_one() == 0


def test_foreign_keys_hold(database: Database):
    with pytest.raises(IntegrityError), database.write() as conn:
        conn.execute(
            Job.__table__.insert().values(
                id="j", project_id="nobody", model="m", policy={}, policy_digest="d", created_at=0.0
            )
        )


def test_many_threads_lose_no_update(database: Database):
    def add_one(_: int) -> None:
        with database.write() as conn:
            row = conn.execute(select(PROJECTS.c.created_at).with_for_update()).scalar_one()
            conn.execute(update(PROJECTS).values(created_at=row + 1))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add_one, range(200)))
    with database.read() as conn:
        assert conn.execute(select(PROJECTS.c.created_at)).scalar_one() == 200


def test_a_reader_is_not_held_up_by_a_writer(database: Database):
    with database.write() as writing:
        rename(writing, "not yet")
        with database.read() as conn:
            assert named(conn) == "default"


def test_a_conflict_is_run_again_from_its_start(database: Database):
    runs: list[str] = []

    def work(conn: Connection) -> str:
        rename(conn, f"run {len(runs)}")
        runs.append(named(conn))
        if len(runs) < 3:
            raise Conflict("somebody else")
        return runs[-1]

    pauses: list[float] = []
    assert database.retry_conflicts(work, sleep=pauses.append) == "run 2"
    assert len(pauses) == 2
    with pytest.raises(Conflict):
        database.retry_conflicts(lambda _: (_ for _ in ()).throw(Conflict("always")), attempts=2, sleep=pauses.append)


def test_a_deadlock_on_postgres_is_a_conflict_of_one_and_a_success_of_both(postgres_url: str):
    database = open_database(postgres_url)
    with database.write() as conn:
        conn.execute(insert_ignore(PROJECTS, conn), {"id": "other", "name": "x", "created_at": 0.0})
    met = threading.Barrier(2)
    runs: list[str] = []

    def work(first: str, second: str) -> None:
        def both(conn: Connection) -> None:
            runs.append(first)
            conn.execute(update(PROJECTS).where(PROJECTS.c.id == first).values(created_at=1.0))
            if len(runs) <= 2:
                met.wait(10)
            conn.execute(update(PROJECTS).where(PROJECTS.c.id == second).values(created_at=1.0))

        database.retry_conflicts(both)

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(work, "default", "other"), threads.submit(work, "other", "default")]:
            done.result(20)
    assert len(runs) == 3
    database.close()


def test_a_second_write_inside_the_first_is_a_bug_and_not_a_wait(sqlite_url: str):
    database = open_database(sqlite_url)
    with database.write(), pytest.raises(InvariantBroken), database.write():
        pass
    database.close()


def test_another_process_that_holds_sqlite_is_a_conflict(sqlite_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("storage.database.BUSY_TIMEOUT_S", 0.05)
    ours, theirs = open_database(sqlite_url), open_database(sqlite_url)
    with theirs.write(), pytest.raises(Conflict, match="in the way"), ours.write():
        pass
    with ours.write() as conn:
        rename(conn, "free again")
    ours.close()
    theirs.close()


def test_a_server_that_is_away_is_transient_and_its_password_is_not_told():
    database = open_database(f"postgresql://user:hidden@127.0.0.1:{free_port()}/nothing")
    with pytest.raises(Transient, match="cannot be reached") as caught, database.read():
        pass
    assert "hidden" not in str(caught.value)


def test_a_connection_that_died_is_transient_once_and_then_made_anew(postgres_url: str):
    database = open_database(postgres_url, pool_size=1)
    with database.read() as conn:
        victim = conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    killer = open_database(postgres_url)
    with killer.write() as conn:
        conn.exec_driver_sql(f"SELECT pg_terminate_backend({victim}, 5000)")
    with pytest.raises(Transient), database.read() as conn:
        named(conn)
    with database.read() as conn:
        assert named(conn) == "default"
    database.close()
    killer.close()


@pytest.mark.parametrize("url", ["", "mysql://host/x", "sqlite://", "sqlite:///:memory:", "nonsense"])
def test_other_databases_are_refused_with_the_way_out(url: str):
    with pytest.raises(BadInput, match="postgresql://"):
        open_database(url)


def test_a_url_without_a_driver_gets_ours(tmp_path: Path):
    assert open_database("postgres://h/x").url.drivername == "postgresql+psycopg"
    assert open_database(f"sqlite:///{tmp_path}/x").dialect == "sqlite"
