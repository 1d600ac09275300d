"""Jobs over HTTP: submitted, steered, listed, and their results and traces fetched."""

from __future__ import annotations

import hashlib

from tests.api.conftest import Server, json_lines, line


def test_a_job_from_submit_to_results(server: Server) -> None:
    job_id = server.submit(3, name="three", policy={"candidates": 2, "seed": 5}, metadata={"team": "x"})
    before = server.http.get(f"/api/jobs/{job_id}").json()
    assert (before["status"], before["counts"]["waiting"], before["progress"], before["eta_s"]) == (
        "running",
        3,
        0.0,
        None,
    )
    assert server.http.get(f"/api/jobs/{job_id}/results").text == ""
    server.run(job_id)
    job = server.http.get(f"/api/jobs/{job_id}").json()
    assert (job["status"], job["counts"]["done"], job["progress"]) == ("completed", 3, 1.0)
    assert (job["name"], job["metadata"], job["policy"]["seed"]) == ("three", {"team": "x"}, 5)
    usage = job["usage"]
    assert usage["candidates"] == 3 * 4 * 2
    assert usage["kept"] > 0 < usage["discarded"]
    lines = json_lines(server.http.get(f"/api/jobs/{job_id}/results").text)
    assert [row["custom_id"] for row in lines] == ["q0", "q1", "q2"]
    assert set(lines[0]) == {"line", "custom_id", "status", "answer", "error", "usage"}
    after = json_lines(server.http.get(f"/api/jobs/{job_id}/results?after=1&limit=1").text)
    assert [row["custom_id"] for row in after] == ["q1"]
    output = json_lines(server.http.get(f"/api/files/{job['output_file_id']}/content").text)
    assert [row["answer"] for row in output] == [row["answer"] for row in lines]


def test_traces_hold_the_four_stages(server: Server) -> None:
    job_id = server.submit(1)
    server.run(job_id)
    shown = json_lines(server.http.get(f"/api/jobs/{job_id}/results?trace=true").text)[0]
    assert [stage["stage"] for stage in shown["trace"]["stages"]] == ["summary", "caption", "reasoning", "conclusion"]
    assert all(stage["candidates"] for stage in shown["trace"]["stages"])
    query = server.http.get(f"/api/jobs/{job_id}/queries?custom_id=q0").json()["data"][0]
    assert query["answer"] == shown["answer"]
    found = server.http.get(f"/api/queries/{query['id']}/trace").json()
    assert found["trace"]["stages"] == shown["trace"]["stages"]
    assert found["query"]["id"] == server.http.get(f"/api/queries/{query['id']}").json()["id"]


def test_bad_lines_fail_the_job_or_are_skipped(server: Server) -> None:
    lines = [line("good"), {**line("bad"), "qestion": "?"}]
    failed = server.http.get(f"/api/jobs/{server.submit_lines(lines)}").json()
    assert (failed["status"], failed["counts"]["total"]) == ("failed", 0)
    assert {"line", "field", "code", "message"} <= set(failed["errors"][0])
    assert (failed["errors"][0]["line"], failed["errors"][0]["field"]) == (2, "qestion")
    assert '"question"' in failed["errors"][0]["message"]
    skipped = server.submit_lines(lines, on_bad_line="skip")
    server.run(skipped)
    job = server.http.get(f"/api/jobs/{skipped}").json()
    assert (job["status"], job["counts"]["done"], job["counts"]["failed"]) == ("completed", 1, 1)


def test_a_repeated_request_makes_one_job_and_the_same_work_is_told(server: Server) -> None:
    body = {"lines": [line("a")], "model": "scripted"}
    first, again = (
        server.http.post("/api/jobs", json=body, headers={"idempotency-key": "night-1"}).json() for _ in range(2)
    )
    assert (first["id"], first["same_as"]) == (again["id"], None)
    assert len(server.http.get("/api/jobs").json()["data"]) == 1
    other = server.http.post("/api/jobs", json=body | {"name": "x"}, headers={"idempotency-key": "night-1"})
    assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency_key_reused")
    assert server.http.post("/api/jobs", json=body).json()["same_as"] == first["id"]
    changed = {**body, "policy": {"candidates": 2}}
    assert server.http.post("/api/jobs", json=changed).json()["same_as"] is None


def test_a_dry_run_tells_the_cost_and_makes_nothing(server: Server) -> None:
    lines = [line("a"), line("a")]
    plan = server.http.post("/api/jobs?dry_run=true", json={"lines": lines, "model": "scripted"}).json()
    assert (plan["lines"], plan["accepted"], plan["error_count"]) == (2, 1, 1)
    assert plan["errors"][0]["code"] == "duplicate_custom_id"
    assert plan["cost"]
    assert server.http.get("/api/jobs").json()["data"] == []


def test_steering(server: Server) -> None:
    job_id = server.submit(2)
    assert server.http.post(f"/api/jobs/{job_id}/pause", json={"reason": "lunch"}).json()["paused"]
    assert not server.http.post(f"/api/jobs/{job_id}/resume").json()["paused"]
    assert server.http.post(f"/api/jobs/{job_id}/pause").json()["paused"]
    assert server.http.post(f"/api/jobs/{job_id}/cancel?dry_run=true").json()["status"] == "running"
    stopped = server.http.post(f"/api/jobs/{job_id}/cancel").json()
    assert (stopped["status"], stopped["killed_at"]) == ("cancelling", None)
    again = server.http.post(f"/api/jobs/{job_id}/cancel").json()
    assert (again["cancelling_at"], again["killed_at"]) == (stopped["cancelling_at"], None)
    assert server.http.post(f"/api/jobs/{job_id}/cancel?dry_run=true", json={"now": True}).json()["killed_at"] is None
    assert server.http.post(f"/api/jobs/{job_id}/cancel", json={"now": True}).json()["killed_at"] is not None
    assert server.http.post(f"/api/jobs/{job_id}/pause", json={"now": True}).status_code == 422
    server.run(job_id)
    job = server.http.get(f"/api/jobs/{job_id}").json()
    assert (job["status"], job["counts"]["cancelled"]) == ("cancelled", 2)
    again = server.http.post(f"/api/jobs/{job_id}/retry").json()
    assert (again["status"], again["paused"]) == ("running", False), "a retry is asked for in order to run"
    server.run(job_id)
    assert server.http.get(f"/api/jobs/{job_id}").json()["counts"]["done"] == 2
    late = server.http.post(f"/api/jobs/{job_id}/cancel")
    assert (late.status_code, late.json()["error"]["code"]) == (409, "job_ended")


def test_a_manifest_comes_with_the_end(server: Server) -> None:
    job_id = server.submit(2, metadata={"night": ""})
    early = server.http.get(f"/api/jobs/{job_id}/manifest")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "job_running")
    server.run(job_id)
    manifest = server.http.get(f"/api/jobs/{job_id}/manifest").json()
    assert (manifest["counts"]["done"], manifest["metadata"]) == (2, {"night": ""})
    (entry,) = manifest["files"]
    data = server.http.get(f"/api/files/{entry['file_id']}/content").content
    assert (entry["name"], entry["lines"], entry["bytes"]) == ("output.jsonl", 2, len(data))
    assert entry["sha256"] == hashlib.sha256(data).hexdigest()


def test_lists_page_and_filter(server: Server) -> None:
    ids = [server.submit(1, name=f"run {i}") for i in range(5)]
    seen, after = [], None
    while True:
        page = server.http.get("/api/jobs", params={"limit": 2, **({"after": after} if after else {})}).json()
        seen += [job["id"] for job in page["data"]]
        after = page["next"]
        if not page["has_more"]:
            break
    assert seen == ids[::-1]
    assert [job["name"] for job in server.http.get("/api/jobs?name=run 3").json()["data"]] == ["run 3"]
    assert server.http.get("/api/jobs?status=failed").json()["data"] == []
    assert len(server.http.get("/api/jobs?status=running&status=failed").json()["data"]) == 5
    labelled = server.submit(1, metadata={"night": "", "team": "vision", "size": 3})
    for text, count in (
        ("label:night", 1),
        ("label:team=vision is:active", 1),
        ("label:team=x", 0),
        ("label:size=3", 1),
    ):
        found = server.http.get("/api/jobs", params={"filter": text}).json()["data"]
        assert [job["id"] for job in found] == [labelled] * count, text
    assert server.http.get("/api/jobs?filter=lable:x").json()["error"]["code"] == "invalid_filter"
    assert server.http.get(f"/api/jobs/{labelled}/queries?filter=line:2").json()["data"] == []
    queries = server.http.get(f"/api/jobs/{server.submit(5)}/queries?limit=2&after=2").json()
    assert ([query["line"] for query in queries["data"]], queries["next"]) == ([3, 4], "4")
