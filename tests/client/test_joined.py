"""A user's table comes back beside the results: columns under their own names, numbers as numbers, nulls as nulls."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import insert

from orchestrator.exports.cells import to_csv
from orchestrator.exports.own import MAX_COLUMNS, columns_of, metadata_of, renamed
from orchestrator.exports.parquet import to_parquet
from stagebeam import Client
from storage.database import Database
from storage.tables import Job, Query
from tests.client.test_client import png

COLUMNS = {
    "id": ["a", "b", "c"],
    "prompt": ["one?", "two?", "three?"],
    "score": [0.25, None, 3.0],
    "rank": [7, 12, None],
    "seen": [True, False, None],
    "box": [[1, 2], [], None],
    "zip": ["007", "12", ""],
    "status": ["new", "old", None],
    "input_status": ["x", "y", "z"],
    "=sum": ["+1", "-1", "@x"],
    "paid": [Decimal("1.50"), None, Decimal("2.25")],
    "day": [date(2026, 11, 30), None, None],
}
THEIRS = ["score", "rank", "seen", "box", "zip", "input_status", "input_input_status", "=sum", "paid", "day"]

Exported = Callable[[Path, str], bytes]


@pytest.fixture
def exported(live: str, tmp_path: Path) -> Iterator[Exported]:
    """Submits a table and gives the joined results in a form."""
    (tmp_path / "a.png").write_bytes(png(1))
    jobs: dict[Path, str] = {}
    with Client(live) as client:

        def run(table: Path, form: str) -> bytes:
            if table not in jobs:
                jobs[table] = client.submit(table).id
                assert client.wait(jobs[table], 30).counts.done == 3
            path = tmp_path / f"out.{form}"
            return client.export(jobs[table], path, joined=True).read_bytes()

        yield run


def table(values: dict[str, list[Any]]) -> pa.Table:
    return pa.table({**values, "image": ["a.png"] * 3})


def test_a_parquet_table(exported: Exported, tmp_path: Path):
    path = tmp_path / "t.parquet"
    pq.write_table(table(COLUMNS), path)
    found = pq.read_table(io.BytesIO(exported(path, "parquet")))
    assert found.column_names[-len(THEIRS) :] == THEIRS
    kinds = {name: str(found.schema.field(name).type) for name in THEIRS}
    assert kinds == {
        "score": "double", "rank": "int64", "seen": "bool", "box": "list<element: int64>", "zip": "string",
        "input_status": "string", "input_input_status": "string", "=sum": "string", "paid": "double", "day": "string",
    }  # fmt: skip
    rows = found.to_pylist()
    for theirs, ours in (("score", "score"), ("box", "box"), ("zip", "zip"), ("input_status", "status")):
        assert [row[theirs] for row in rows] == COLUMNS[ours]
    assert [row["paid"] for row in rows] == [1.5, None, 2.25]
    assert [row["day"] for row in rows] == ["2026-11-30", None, None]
    assert [row["status"] for row in rows] == ["done"] * 3
    lines = [json.loads(line) for line in exported(path, "jsonl").splitlines()]
    assert [line["rank"] for line in lines] == COLUMNS["rank"]
    assert [line["input_input_status"] for line in lines] == COLUMNS["input_status"]
    assert "metadata" not in lines[0]


def test_a_csv_table_comes_back_as_it_was(exported: Exported, tmp_path: Path):
    path = tmp_path / "t.csv"
    theirs = {
        "score": ["0.25", "", "3.0"],
        "rank": ["7", "12", "-3"],
        "zip": ["007", "12", ""],
        "price": ["1.50", "2", "3"],
        "note": ["", "", ""],
    }
    columns = {"id": COLUMNS["id"], "prompt": COLUMNS["prompt"], "image": ["a.png"] * 3, **theirs}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    rows = list(csv.DictReader(io.StringIO(exported(path, "csv").decode())))
    assert {name: [row[name] for row in rows] for name in theirs} == theirs
    found = pq.read_table(io.BytesIO(exported(path, "parquet")))
    assert {name: found[name].to_pylist() for name in theirs} == {
        **theirs, "score": [0.25, None, 3.0], "rank": [7, 12, -3],
    }  # fmt: skip


def test_fields_of_jsonl_rows(exported: Exported, tmp_path: Path):
    path = tmp_path / "t.jsonl"
    extra = [{"depth": 1, "tags": ["x"]}, {"depth": 2.5, "meta": {"a": 1}}, {"meta": "text", "depth": None}]
    rows = [{"id": f"r{n}", "query": "?", "image": "a.png", **fields} for n, fields in enumerate(extra)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = pq.read_table(io.BytesIO(exported(path, "parquet"))).to_pylist()
    assert [row["depth"] for row in found] == [1.0, 2.5, None]
    assert [row["tags"] for row in found] == [["x"], None, None]
    assert [row["meta"] for row in found] == [None, '{"a":1}', "text"]
    lines = [json.loads(line) for line in exported(path, "jsonl").splitlines()]
    assert [{name: line[name] for name in extra[n]} for n, line in enumerate(lines)] == extra


def test_the_metadata_of_every_line_is_read_on_both_databases(database: Database):
    given = [{"a": 1}, None, {"b": [None, "x"], "a": 0.5}]
    body = {"question": "?", "images": []}
    line = {"job_id": "j", "status": "waiting", "retries": 0, "created_at": 0.0}
    job = {"id": "j", "project_id": "default", "status": "running", "model": "m", "policy": {}, "policy_digest": "x"}
    with database.write() as conn:
        conn.execute(insert(Job).values(**job, created_at=0.0))
        for number, metadata in enumerate(given, start=1):
            own = {"metadata": metadata} if metadata else {}
            conn.execute(insert(Query).values(**line, line=number, custom_id=f"q{number}", body={**body, **own}))
    assert list(metadata_of(database, "j")) == [{"a": 1}, {}, {"b": [None, "x"], "a": 0.5}]


def record(metadata: dict[str, Any]) -> dict[str, Any]:
    return {"line": 1, "custom_id": "a", "status": "done", "expected": None, "metadata": metadata}


def test_names_never_meet_and_are_guarded():
    assert renamed({"answer": 1, "input_answer": 2, "input_x": 3, "metadata": 4}) == {
        "input_answer": 1, "input_input_answer": 2, "input_x": 3, "metadata": 4,
    }  # fmt: skip
    own = columns_of([{"=cmd()": "@x", "n": -1}])
    header, row = b"".join(to_csv([record({"=cmd()": "@x", "n": -1})], joined=True, own=own)).split(b"\r\n")[:2]
    assert header.endswith(b",'=cmd(),n")
    assert row.endswith(b",'@x,-1")


def test_free_data_is_one_column():
    lines = [{f"k{n}": n} for n in range(MAX_COLUMNS + 1)]
    own = columns_of(lines)
    data = b"".join(to_parquet([record(line) for line in lines[:2]], trace=False, joined=True, own=own))
    assert pq.read_table(io.BytesIO(data))["metadata"].to_pylist() == ['{"k0":0}', '{"k1":1}']


@pytest.mark.parametrize(
    ("values", "kind", "held"),
    [
        ([1, 2.5], "double", [1.0, 2.5]),
        ([2**63, 1], "string", [str(2**63), "1"]),
        ([True, 1], "string", ["true", "1"]),
        ([None, None], "string", [None, None]),
        ([[], [None]], "list<element: string>", [[], [None]]),
        ([[1, "x"], 3], "string", ['[1,"x"]', "3"]),
        ([[1, "x"], None], "list<element: string>", [["1", "x"], None]),
    ],
)
def test_mixed_values_take_the_narrowest_type(values: list[Any], kind: str, held: list[Any]):
    rows = [{"v": value} for value in values]
    own = columns_of(rows)
    data = b"".join(to_parquet([record(row) for row in rows], trace=False, joined=True, own=own))
    found = pq.read_table(io.BytesIO(data))
    assert str(found.schema.field("v").type) == kind
    assert found["v"].to_pylist() == held


def test_a_bad_row_keeps_its_columns(live: str, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(png(1))
    path = tmp_path / "t.jsonl"
    rows = [
        '{"id": 1, "image": "a.png", "query": "?", "w": 1}',
        '{"id": 2, broken',
        '{"id": 3, "image": "gone.png", "query": "?", "w": 3}',
        '{"id": 4, "image": "a.png", "query": "", "w": 4}',
    ]
    path.write_text("\n".join(rows))
    with Client(live) as client:
        job = client.submit(path, on_bad_line="skip").id
        assert client.wait(job, 30).counts.failed == 3
        found = client.export(job, tmp_path / "out.jsonl", joined=True).read_text().splitlines()
    lines = [json.loads(line) for line in found]
    assert [(line["error"] or {}).get("code") for line in lines] == [
        None, "invalid_json_line", "image_missing", "invalid_value",
    ]  # fmt: skip
    assert [line.get("w") for line in lines] == [1, None, 3, 4]
    assert "line 2 is not JSON" in lines[1]["error"]["message"]
