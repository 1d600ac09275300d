from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import select

from orchestrator.results import result_lines
from orchestrator.schedules.content import folder_revision, salt
from orchestrator.traces import trace_of
from reasoning.policy import Policy
from storage import fleet
from storage.tables import Delivery
from tests.schedules.bench import Bench, rows


def test_an_unchanged_dataset_computes_nothing(bench: Bench):
    bench.schedule()
    first = bench.run()
    second = bench.run()
    assert (first.status, second.status) == ("done", "done")
    assert first.report["computed"] == 3
    assert second.report["computed"] == 0
    assert {name: second.report[name] for name in ("rows", "new", "changed", "unchanged", "removed", "reused")} == {
        "rows": 3,
        "new": 0,
        "changed": 0,
        "unchanged": 3,
        "removed": 0,
        "reused": 3,
    }
    assert bench.calls(second.job_id) == 0
    answers = [[(row.custom_id, row.answer) for row in bench.queries(slot.job_id)] for slot in (first, second)]
    assert answers[0] == answers[1]
    assert bench.job(second.job_id).done == 3


def test_one_percent_changed_costs_one_percent_of_the_calls(bench: Bench):
    hundred = rows(100, policy={"strategy": "single"})
    bench.lines = hundred
    bench.schedule()
    first = bench.run()
    bench.lines = [{**row, "question": "What is new?"} if row["custom_id"] == "row-7" else row for row in hundred]
    second = bench.run()
    assert (second.report["changed"], second.report["computed"], second.report["reused"]) == (1, 1, 99)
    assert 100 * bench.calls(second.job_id) <= bench.calls(first.job_id)
    assert sum(row.reused_from is None for row in bench.queries(second.job_id)) == 1


def test_rows_added_and_removed_are_told(bench: Bench):
    bench.schedule()
    bench.run()
    bench.lines = [*rows(2), {**rows(1)[0], "custom_id": "another"}]
    report = bench.run().report
    assert [report[name] for name in ("rows", "new", "changed", "removed", "reused", "computed")] == [3, 1, 0, 1, 2, 1]


def test_a_row_that_comes_back_is_reused(bench: Bench):
    bench.schedule()
    bench.run()
    bench.lines = rows(2)
    bench.run()
    bench.lines = rows(3)
    report = bench.run().report
    assert (report["new"], report["computed"], report["reused"]) == (1, 0, 3)


def test_a_known_answer_is_no_reason_to_compute_again_and_a_policy_is(bench: Bench):
    bench.schedule()
    bench.run()
    bench.lines = rows(3, answer="7")
    assert bench.run().report["computed"] == 0
    bench.lines = rows(3, policy={"temperature": 0.1})
    again = bench.run()
    assert (again.report["computed"], again.report["changed"]) == (3, 3)


def test_without_incremental_everything_is_computed(bench: Bench):
    bench.schedule(incremental=False)
    first, second = bench.run(), bench.run()
    assert [slot.report["computed"] for slot in (first, second)] == [3, 3]


def test_failed_rows_are_computed_again(bench: Bench):
    bench.schedule(on_bad_row="skip")
    bench.lines = [*rows(2), {"custom_id": "bad", "question": "?", "images": []}]
    first = bench.run()
    assert (first.status, first.report["failed"]) == ("done", 1)
    bench.lines = rows(3)
    assert bench.run().report["reused"] == 2


def test_traces_of_reused_rows_are_those_of_the_rows_behind_them(bench: Bench):
    bench.schedule()
    first, second, third = bench.run(), bench.run(), bench.run()
    mine, theirs = bench.queries(third.job_id)[0], bench.queries(first.job_id)[0]
    assert mine.reused_from == bench.queries(second.job_id)[0].reused_from == theirs.id
    with bench.db.read() as conn:
        assert trace_of(conn, bench.objects, mine.id) == trace_of(conn, bench.objects, theirs.id)
    lines = [line for _, line in result_lines(bench.db, bench.objects, third.job_id, trace=True)]
    assert [line["trace"]["path"] if "path" in line["trace"] else line["trace"] for line in lines]
    assert not list(bench.objects.list(f"jobs/{third.job_id}/traces/"))


def test_outputs_lie_under_the_slot_with_the_manifest_last(bench: Bench):
    schedule_id = bench.schedule(output_prefix="results/{schedule}/{date}/{time}-{slot}", parquet=True)
    slot = bench.run()
    prefix = f"results/{schedule_id}/2026-11-23/121000-{slot.id}"
    assert slot.output_prefix == prefix
    manifest = orjson.loads(bench.objects.read(f"{prefix}/manifest.json"))
    assert manifest["counts"]["rows"] == 3
    assert manifest["policy_digest"] == bench.job(slot.job_id).policy_digest
    lines = bench.objects.read(f"{prefix}/output.jsonl").splitlines()
    assert [orjson.loads(line)["custom_id"] for line in lines] == ["row-0", "row-1", "row-2"]
    assert [entry["name"] for entry in manifest["files"]] == ["output.jsonl", f"slot-{slot.id}.parquet"]
    assert _table(bench, manifest["files"][1]["key"])["reused"] == [False] * 3


def _table(bench: Bench, key: str) -> dict[str, list[Any]]:
    import io

    import pyarrow.parquet as pq

    assert "/slot_date=2026-11-23/" in key
    columns: dict[str, list[Any]] = pq.read_table(io.BytesIO(bench.objects.read(key))).to_pydict()
    return columns


def test_flips_and_accuracy_are_reported_against_the_run_before(bench: Bench):
    bench.schedule(alerts={"url": "http://127.0.0.1:9/hook", "accuracy_drop": 0.1})
    first = bench.run()
    answers = [row.answer for row in bench.queries(first.job_id)]
    bench.lines = [{**row, "answer": answer} for row, answer in zip(rows(3), answers, strict=True)]
    second = bench.run()
    assert second.report["accuracy"] == {"known": 3, "correct": 3, "share": 1.0}
    for seed in range(1, 20):
        bench.lines = [{**row, "policy": {"seed": seed}} for row in bench.lines]
        third = bench.run()
        if third.report["flips"]["count"]:
            break
    flip = third.report["flips"]["shown"][0]
    assert flip["answer"] != flip["previous_answer"]
    assert {flip["query_id"]} <= {row.id for row in bench.queries(third.job_id)}
    assert third.report["accuracy"]["correct"] == 3 - third.report["flips"]["count"]
    assert third.report["accuracy_drop"]
    (told,) = (body["data"] for body in _bodies(bench) if body["type"] == "schedule.accuracy_drop")
    assert (told["accuracy"], told["accuracy_before"]) == (third.report["accuracy"], third.report["accuracy_before"])


def worker(bench: Bench, revision: str) -> None:
    with bench.db.write() as conn:
        told = {"kind": "scripted", "revision": revision}
        fleet.enroll(conn, fleet.NewWorker(f"w-{revision}", "scripted", told, 4, "1"), bench.now)


def test_another_revision_of_the_model_is_computed_anew(bench: Bench):
    bench.schedule()
    worker(bench, "one")
    assert bench.run().report["revisions"] == {"scripted": "one"}
    assert bench.run().report["computed"] == 0
    worker(bench, "two")
    third = bench.run()
    assert (third.report["computed"], third.report["settings_changed"]) == (3, ["revision"])


def test_a_model_folder_is_known_by_what_is_in_it(tmp_path: Path):
    assert folder_revision(str(tmp_path)) is None
    (tmp_path / "weights").write_bytes(b"1")
    first = folder_revision(str(tmp_path))
    (tmp_path / "weights").write_bytes(b"22")
    assert first is not None
    assert folder_revision(str(tmp_path)) not in (None, first)
    assert folder_revision("scripted") is None


def test_projects_share_no_results():
    policy = Policy()
    assert salt("a", "m", policy, {"m": "1"}) != salt("b", "m", policy, {"m": "1"})
    assert salt("a", "m", policy, {"m": "1"}) == salt("a", "m", policy, {"m": "1"})


def _events(bench: Bench) -> list[str]:
    return [body["type"] for body in _bodies(bench)]


def _bodies(bench: Bench) -> list[dict[str, Any]]:
    with bench.db.read() as conn:
        return list(conn.scalars(select(Delivery.__table__.c.body).order_by(Delivery.__table__.c.id)))
