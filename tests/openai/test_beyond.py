"""Beyond the wire: partial results, clones, exports, and datasets that lie on the server."""

from __future__ import annotations

import csv
import io
from typing import Any

import httpx
import orjson
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orchestrator.exports.cells import guarded, to_csv
from orchestrator.exports.records import Position
from reasoning.errors import BadInput
from tests.openai.wire import Wire, jsonl, line


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9)).save(stream, "PNG")
    return stream.getvalue()


def post(wire: Wire, path: str, **given: Any) -> Any:
    answer = httpx.post(wire.url + path, timeout=30, **given)
    assert answer.is_success, answer.text
    return answer.json()


def get(wire: Wire, path: str, **params: Any) -> httpx.Response:
    answer = httpx.get(wire.url + path, params=params, timeout=30)
    assert answer.is_success, answer.text
    return answer


def submitted(wire: Wire, text: bytes, **given: Any) -> str:
    file = post(wire, "/api/files", content=text)
    return str(post(wire, "/api/jobs", json={"file_id": file["id"], **given})["id"])


def native(number: int) -> dict[str, Any]:
    return {**line(number), "custom_id": f"=q-{number}"}


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    return [orjson.loads(item) for item in answer.content.splitlines()]


def test_results_are_read_while_the_job_runs_and_none_twice(any_wire: Wire):
    job = submitted(any_wire, jsonl(*(line(n) for n in range(12))), policy={"candidates": 2})
    any_wire.ingest(job)
    stack = any_wire.stack
    stack.now -= 60  # what ends now has ended long ago for the server's own clock
    seen: list[str] = []
    after = ""
    with stack.worker() as pipeline:
        while len(seen) < 12:
            stack.step(pipeline)
            answer = get(any_wire, f"/api/jobs/{job}/ended", limit=4, **({"after": after} if after else {}))
            seen += [item["custom_id"] for item in lines(answer)]
            after = answer.headers["x-next-after"]
    assert sorted(seen) == sorted(f"q-{n}" for n in range(12))


def test_a_cursor_is_read_back():
    assert Position.parse(str(Position(12.125, 7))) == Position(12.125, 7)
    with pytest.raises(BadInput):
        Position.parse("line 7")


def test_a_job_is_cloned_with_changes(wire: Wire):
    job = submitted(wire, jsonl(line(1)), policy={"candidates": 3, "seed": 5}, name="first")
    jobs = get(wire, "/api/jobs").json()["data"]
    plans = [post(wire, f"/api/jobs/{job}/clone?dry_run=true", json={"policy": {"candidates": n}}) for n in (1, 4)]
    assert [(plan["object"], plan["accepted"]) for plan in plans] == [("job.plan", 1)] * 2
    assert plans[1]["cost"]["candidates_min"] == 4 * plans[0]["cost"]["candidates_min"]
    assert get(wire, "/api/jobs").json()["data"] == jobs
    twin = post(wire, f"/api/jobs/{job}/clone", json={"policy": {"seed": 6}, "priority": "background"})
    assert twin["id"] != job
    assert (twin["policy"]["candidates"], twin["policy"]["seed"], twin["priority"]) == (3, 6, "background")
    assert twin["name"] == "first"
    wire.run(twin["id"])
    assert get(wire, f"/api/jobs/{twin['id']}").json()["status"] == "completed"
    answer = httpx.post(f"{wire.url}/api/jobs/{job}/clone", json={"policy": {"sed": 6}}, timeout=30)
    assert answer.status_code == 400
    assert "Did you mean" in answer.json()["error"]["message"]


@pytest.fixture
def finished(wire: Wire) -> tuple[Wire, str]:
    rows = [
        {"custom_id": f"=q-{n}", "question": f"+{n}?", "images": [], "answer": n, "metadata": {"k": "@x"}}
        for n in range(7)
    ]
    picture = post(wire, "/api/blobs/missing", json={"sha256": ["0" * 64]})
    assert picture["missing"]
    from orchestrator.intake.pictures import digest

    data = png()
    httpx.put(f"{wire.url}/api/blobs/{digest(data)}", content=data, timeout=30).raise_for_status()
    for row in rows:
        row["images"] = [f"blob:{digest(data)}"]
    job = submitted(wire, jsonl(*rows))
    wire.run(job)
    return wire, job


def test_results_as_parquet_with_the_trace_nested(finished: tuple[Wire, str]):
    wire, job = finished
    content = get(wire, f"/api/jobs/{job}/export", format="parquet", trace=True, joined=True).content
    rows = pq.read_table(io.BytesIO(content)).to_pylist()
    assert [row["custom_id"] for row in rows] == [f"=q-{n}" for n in range(7)]
    first = rows[0]
    assert first["usage"]["generated_tokens"] > 0
    assert [stage["stage"] for stage in first["stages"]] == ["summary", "caption", "reasoning", "conclusion"]
    assert [item["status"] for item in first["stages"][0]["candidates"]].count("kept") == 1
    assert first["stages"][1]["verdicts"][0]["winner"] is not None
    assert (first["question"], first["expected"], len(first["images"])) == ("+0?", "0", 1)
    plain = pq.read_table(io.BytesIO(get(wire, f"/api/jobs/{job}/export", format="parquet").content))
    assert "stages" not in plain.column_names


def test_results_as_csv_with_guarded_cells(finished: tuple[Wire, str]):
    wire, job = finished
    text = get(wire, f"/api/jobs/{job}/export", format="csv", joined=True).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["custom_id"] for row in rows] == [f"'=q-{n}" for n in range(7)]
    assert rows[3]["question"] == "'+3?"
    assert (rows[3]["status"], rows[3]["k"]) == ("done", "'@x")


def test_results_as_jsonl_joined_with_their_input(finished: tuple[Wire, str]):
    wire, job = finished
    found = lines(get(wire, f"/api/jobs/{job}/export", joined=True))
    assert [(item["line"], item["expected"], item["k"]) for item in found] == [(n + 1, n, "@x") for n in range(7)]
    assert httpx.get(f"{wire.url}/api/jobs/{job}/export?format=xls", timeout=30).status_code == 422


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_formulas_are_guarded(cell: str):
    assert guarded(cell) == f"'{cell}"
    assert guarded(-1) == -1
    assert b"line,custom_id" in b"".join(to_csv([], joined=False))


def test_a_table_on_the_server_becomes_an_input_file(wire: Wire):
    import base64

    text = "id,image,ask\n" + "".join(f"{n},{base64.b64encode(png()).decode()},what {n}?\n" for n in range(3))
    file = post(wire, "/api/files?filename=t.csv", content=text.encode())
    asked = {"file_id": file["id"], "columns": {"question": "ask"}}
    plan = post(wire, "/api/datasets?dry_run=true", json=asked)
    assert (plan["format"], plan["columns"]["images"], plan["file"]) == ("csv", ["image"], None)
    assert plan["sample"][0]["question"] == "what 0?"
    made = post(wire, "/api/datasets", json=asked)
    job = str(post(wire, "/api/jobs", json={"file_id": made["file"]["id"]})["id"])
    wire.run(job)
    document = get(wire, f"/api/jobs/{job}").json()
    assert document["counts"]["done"] == 3
    answer = httpx.post(f"{wire.url}/api/datasets", json={"file_id": file["id"]}, timeout=30)
    assert answer.json()["error"]["code"] == "no_question"


def test_an_object_prefix_becomes_an_input_file(wire: Wire):
    for name in ("images/a/1.png", "images/a/2.png", "images/b/3.png", "jobs/secret.png"):
        wire.objects.put(name, png())
    made = post(wire, "/api/datasets", json={"object_prefix": "images/a/", "question": "What?"})
    job = str(post(wire, "/api/jobs", json={"file_id": made["file"]["id"]})["id"])
    wire.run(job)
    assert get(wire, f"/api/jobs/{job}").json()["counts"]["done"] == 2
    refused = httpx.post(f"{wire.url}/api/datasets", json={"object_prefix": "jobs/", "question": "What?"}, timeout=30)
    assert refused.json()["error"]["code"] == "image_outside_roots"


def test_a_plan_tells_calls_tokens_time_and_storage(wire: Wire):
    client = wire.client()
    file = client.files.create(file=jsonl(*(line(n) for n in range(6))), purpose="batch")
    body = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    before = post(wire, "/v1/batches?dry_run=true", json=body)
    assert (before["accepted"], before["cost"]["candidates_min"], before["estimate"]["seconds"]) == (6, 96, None)
    batch = post(wire, "/v1/batches", json=body)
    wire.run(batch["id"])
    after = post(wire, "/v1/batches?dry_run=true", json=body)
    low, high = after["estimate"]["seconds"]
    assert 0 < low < high
    assert after["estimate"]["storage_bytes_max"] > 0
    assert len(client.batches.list().data) == 1
