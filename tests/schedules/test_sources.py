from __future__ import annotations

import csv
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from orchestrator.schedules.sources import SourceReader, SourceSettings, check_reach
from reasoning.errors import BadInput, Transient
from storage.objects import open_objects
from storage.settings import Settings
from tests.schedules.clocks import at

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    (folder / "more").mkdir(parents=True)
    for name in ("a.png", "b.png", "more/c.png", "notes.txt"):
        (folder / name).write_bytes(PNG)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def table(path: Path, rows: list[dict[str, str]]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def read(settings: Settings, source: dict[str, Any], due: float = 0.0, **dataset: Any) -> list[dict[str, Any]]:
    mapping = {name: dataset.pop(name) for name in ("columns", "question") if name in dataset}
    row = SimpleNamespace(source=source, mapping=mapping, identity=dataset.pop("identity", []))
    return list(SourceReader(open_objects(settings), settings)(row, due).lines)


def ids(lines: list[dict[str, Any]]) -> list[str]:
    return [line["custom_id"] for line in lines]


def test_a_folder_of_images(scenes: Path, settings: Settings):
    lines = read(settings, {"kind": "path", "address": str(scenes)}, question="How many?")
    assert ids(lines) == ["a.png", "b.png", "more/c.png"]
    assert {line["question"] for line in lines} == {"How many?"}


def test_a_glob_of_images_and_one_of_tables(scenes: Path, settings: Settings, tmp_path: Path):
    images = read(settings, {"kind": "glob", "address": f"{scenes}/**/*.png"}, question="How many?")
    assert ids(images) == ["a.png", "b.png", "more/c.png"]
    for name in ("one", "two"):
        table(tmp_path / f"{name}.csv", [{"id": name, "question": "?", "image": f"{name}.png"}])
    assert ids(read(settings, {"kind": "glob", "address": f"{tmp_path}/*.csv"})) == ["one", "two"]


def test_a_prefix_of_the_object_store(settings: Settings):
    objects = open_objects(settings)
    for name in ("x.png", "y.png"):
        objects.put(f"datasets/night/{name}", PNG)
    found = read(settings, {"kind": "prefix", "address": "datasets/night/"}, question="How many?")
    assert [line["images"] for line in found] == [["object:datasets/night/x.png"], ["object:datasets/night/y.png"]]
    objects.put("datasets/tables/q.jsonl", b'{"custom_id": "1", "question": "?", "images": ["object:images/x.png"]}\n')
    assert ids(read(settings, {"kind": "prefix", "address": "datasets/tables/"})) == ["1"]


@pytest.fixture(params=["sqlite", "postgresql"])
def connected(request: pytest.FixtureRequest, tmp_path: Path, settings: Settings) -> Settings:
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("blank_postgres_url")
    engine = create_engine(url)
    with engine.begin() as conn:
        conn.execute(text("create table scenes (id integer, ask text, file text, seen timestamp)"))
        for number in (1, 2, 3):
            values = {"id": number, "file": f"{number}.png", "seen": f"2026-11-2{number} 00:00:00"}
            conn.execute(text("insert into scenes values (:id, 'How many?', :file, :seen)"), values)
    engine.dispose()
    return settings.model_copy(update={"sql_connections": {"rows": SecretStr(url)}})


def sql(query: str, connection: str = "rows") -> dict[str, str]:
    return {"kind": "sql", "address": connection, "query": query}


COLUMNS = {"columns": {"question": "ask", "images": "file"}}


def test_a_query_reads_rows_up_to_the_time_of_the_slot(connected: Settings):
    query = "select * from scenes where seen < :slot order by id"
    lines = read(connected, sql(query), due=at("2026-11-22T12:00"), **COLUMNS)
    assert ids(lines) == ["1", "2"]
    assert lines[0]["images"] == ["1.png"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("delete from scenes", "invalid_query"),
        ("select 1; delete from scenes", "invalid_query"),
        ("with gone as (delete from scenes returning *) select * from gone", "query_failed"),
        ("select * from nowhere", "query_failed"),
        ("with some as (select 1) delete from scenes", "query_failed"),
        ("with some as (select 1) insert into scenes (id) select 4", "query_failed"),
    ],
)
def test_a_query_changes_nothing(connected: Settings, query: str, code: str):
    with pytest.raises(BadInput) as refused:
        read(connected, sql(query), **COLUMNS)
    assert refused.value.code == code
    assert len(read(connected, sql("select * from scenes"), **COLUMNS)) == 3


def test_an_unknown_connection_is_named(connected: Settings):
    with pytest.raises(BadInput, match='Did you mean "rows"'):
        read(connected, sql("select 1", "rowz"))


def test_credentials_that_are_refused_are_said_and_not_shown(settings: Settings, blank_postgres_url: str):
    url = blank_postgres_url.replace("app@", "nobody:hunter2@")
    refused = settings.model_copy(update={"sql_connections": {"rows": SecretStr(url)}})
    with pytest.raises(BadInput) as error:
        read(refused, sql("select 1"))
    assert error.value.code == "credentials_refused"
    assert 'connection "rows"' in error.value.message
    assert "hunter2" not in str(error.value)
    assert "hunter2" not in repr(refused)


WRITES = (
    "select wipe() as ask, 'x' as file",
    "select nextval('numbers') as ask, 'x' as file",
    "select * from scenes for update",
    "select set_config('transaction_read_only', 'off', false) as ask, wipe()::text as file",
    "select set_config('default_transaction_read_only', 'off', false) as ask, wipe()::text as file",
)


@pytest.mark.parametrize("query", WRITES)
def test_a_function_that_writes_is_refused_by_the_server_even_for_an_owner(
    settings: Settings, blank_postgres_url: str, query: str
):
    engine = create_engine(blank_postgres_url)
    with engine.begin() as conn:
        conn.execute(text("create table scenes (ask text, file text)"))
        conn.execute(text("insert into scenes values ('How many?', 'x')"))
        conn.execute(text("create sequence numbers"))
        wipe = "create function wipe() returns int language sql as 'delete from scenes; select 1'"
        conn.execute(text(wipe))
    owner = settings.model_copy(update={"sql_connections": {"rows": SecretStr(blank_postgres_url)}})
    with pytest.raises(BadInput, match=r"read-only|before any query"):
        read(owner, sql(query), **COLUMNS)
    with engine.begin() as conn:
        assert conn.execute(text("select count(*) from scenes")).scalar_one() == 1
        assert conn.execute(text("select is_called from numbers")).scalar_one() is False
    engine.dispose()


def test_what_a_read_only_transaction_lets_through_is_rolled_back(settings: Settings, blank_postgres_url: str):
    owner = settings.model_copy(update={"sql_connections": {"rows": SecretStr(blank_postgres_url)}})
    with suppress(BadInput):  # later versions of Postgres refuse it
        read(owner, sql("select lo_create(7)::text as ask, 'x' as file"), **COLUMNS)
    engine = create_engine(blank_postgres_url)
    with engine.begin() as conn:
        assert conn.execute(text("select count(*) from pg_largeobject_metadata")).scalar_one() == 0
    engine.dispose()


def test_reading_makes_no_database(settings: Settings, tmp_path: Path):
    nowhere = tmp_path / "nowhere.db"
    absent = settings.model_copy(update={"sql_connections": {"rows": SecretStr(f"sqlite:///{nowhere}")}})
    with pytest.raises(BadInput, match=r"leads nowhere.*STAGEBEAM_SQL_CONNECTIONS") as refused:
        read(absent, sql("select 1"))
    assert refused.value.code == "connection_refused"
    assert not nowhere.exists()


def test_a_database_that_does_not_exist_is_no_reason_to_wait(settings: Settings, blank_postgres_url: str):
    url = blank_postgres_url.rpartition("/")[0] + "/nowhere"
    absent = settings.model_copy(update={"sql_connections": {"rows": SecretStr(url)}})
    with pytest.raises(BadInput, match="leads nowhere") as refused:
        read(absent, sql("select 1"))
    assert refused.value.code == "connection_refused"


class Expired(BaseHTTPRequestHandler):
    """An S3 server whose every answer is that the credentials have run out."""

    def do_GET(self) -> None:
        body = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
        self.send_response(400)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: Any) -> None:
        return


def test_credentials_of_the_store_that_ran_out_are_said(settings: Settings):
    with ThreadingHTTPServer(("127.0.0.1", 0), Expired) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        told = {
            "object_store": "s3://scenes/",
            "s3_endpoint_url": f"http://127.0.0.1:{server.server_port}",
            "s3_region": "eu-central-1",
            "s3_access_key_id": SecretStr("key"),
            "s3_secret_access_key": SecretStr("hunter2"),
        }
        expired = settings.model_copy(update=told)
        with pytest.raises(Transient, match=r"ExpiredToken.*access key \(has it expired") as error:
            read(expired, {"kind": "prefix", "address": "datasets/night/"}, question="How many?")
        server.shutdown()
        thread.join()
    assert "hunter2" not in str(error.value)


def test_a_database_that_is_away_is_tried_again(settings: Settings):
    away = settings.model_copy(update={"sql_connections": {"rows": SecretStr("postgresql://app@127.0.0.1:1/x")}})
    with pytest.raises(Transient):
        read(away, sql("select 1"))


@pytest.mark.parametrize(
    ("source", "dataset", "code"),
    [
        ({"kind": "path", "address": "/nowhere/at/all"}, {"question": "?"}, "file_not_found"),
        ({"kind": "glob", "address": "/nowhere/*.csv"}, {}, "source_missing"),
        ({"kind": "prefix", "address": "datasets/none/"}, {"question": "?"}, "source_missing"),
        ({"kind": "path", "address": "relative"}, {}, "invalid_source"),
        ({"kind": "prefix", "address": "jobs/"}, {}, "invalid_source"),
        ({"kind": "sql", "address": "rows"}, {}, "invalid_source"),
        ({"kind": "path", "address": ""}, {}, "invalid_source"),
        ({"kind": "ftp", "address": "x"}, {}, "invalid_source"),
        ({"kind": "path", "address": "/x", "adress": "y"}, {}, "unknown_field"),
        ({"kind": "path", "address": 7}, {}, "invalid_type"),
    ],
)
def test_sources_that_cannot_be_read_are_named(settings: Settings, source: dict[str, Any], dataset: Any, code: str):
    with pytest.raises(BadInput) as refused:
        read(settings, source, **dataset)
    assert refused.value.code == code


def test_a_schema_that_changed_is_named(settings: Settings, tmp_path: Path):
    address = table(tmp_path / "q.csv", [{"id": "1", "question": "?", "image": "a.png"}])
    source, columns = {"kind": "path", "address": address}, {"columns": {"question": "question", "images": "image"}}
    assert len(read(settings, source, **columns)) == 1
    table(tmp_path / "q.csv", [{"id": "1", "query": "?", "image": "a.png"}])
    with pytest.raises(BadInput, match='no column "question"') as refused:
        read(settings, source, **columns)
    assert refused.value.code == "unknown_column"


ROWS = [{"scene": "s1", "view": str(view), "question": f"q{view}", "image": f"{view}.png"} for view in range(3)]


def test_several_columns_tell_rows_apart(settings: Settings, tmp_path: Path):
    source = {"kind": "path", "address": table(tmp_path / "q.csv", ROWS)}
    assert ids(read(settings, source, identity=["scene", "view"])) == ["s1/0", "s1/1", "s1/2"]
    assert ids(read(settings, source, identity=["question"])) == ["q0", "q1", "q2"]
    with pytest.raises(BadInput, match='no "scenes"'):
        read(settings, source, identity=["scenes"])
    table(tmp_path / "q.csv", [*ROWS, {**ROWS[0], "scene": ""}])
    with pytest.raises(BadInput, match='row 4 has no "scene"'):
        read(settings, source, identity=["scene", "view"])


@pytest.mark.parametrize("moved", [lambda rows: rows[::-1], lambda rows: rows[1:], lambda rows: [ROWS[0], *rows]])
def test_rows_without_ids_keep_theirs_when_others_come_and_go(
    settings: Settings, tmp_path: Path, moved: Callable[[list[dict[str, str]]], list[dict[str, str]]]
):
    source = {"kind": "path", "address": table(tmp_path / "q.csv", ROWS)}
    before = {line["question"]: line["custom_id"] for line in read(settings, source)}
    table(tmp_path / "q.csv", moved(ROWS))
    after = [(line["question"], line["custom_id"]) for line in read(settings, source)]
    assert all(before[question] == name or name.endswith("-2") for question, name in after)
    assert len({name for _, name in after}) == len(after)


def test_who_may_read_what(scenes: Path, settings: Settings, tmp_path: Path):
    bounded = settings.model_copy(update={"image_roots": [scenes]})

    def refused(source: dict[str, str], *, admin: bool = False) -> bool:
        with suppress(BadInput):
            check_reach(SourceSettings.from_mapping(source), bounded, admin=admin)
            return False
        return True

    (tmp_path / "link").symlink_to("/etc")
    (scenes / "link").symlink_to("/etc")
    assert not refused({"kind": "path", "address": str(scenes)})
    assert not refused({"kind": "path", "address": f"{scenes}/more"})
    assert not refused({"kind": "glob", "address": f"{scenes}/*.png"})
    assert not refused({"kind": "prefix", "address": "datasets/x"})
    assert refused({"kind": "path", "address": "/etc"})
    assert not refused({"kind": "path", "address": "/etc"}, admin=True)
    assert refused({"kind": "path", "address": f"{scenes}/link"})
    assert refused({"kind": "path", "address": f"{scenes}/../link"})
    assert refused({"kind": "path", "address": f"{scenes}-other"})
    assert refused({"kind": "glob", "address": "/e*/passwd"})
    assert refused({"kind": "sql", "address": "rows", "query": "select 1"})
