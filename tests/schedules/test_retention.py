from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from orchestrator.actions import retry_job
from orchestrator.intake.ingest import ingest
from orchestrator.results import result_lines
from orchestrator.schedules.flips import flips_of
from orchestrator.schedules.retention import DAY_S, EVERY_S, Sweeper, retain
from reasoning.errors import BadInput
from storage import duties, files, schedules
from storage.database import open_database
from storage.objects import open_objects
from storage.settings import Settings
from storage.tables import Call, Duty, Query, StoredResult
from tests.orchestrator.driving import SETTINGS
from tests.schedules.bench import Bench, new_id, rows
from tests.waiting import wait_until


def keep(bench: Bench, schedule_id: str) -> int:
    return retain(bench.db, bench.objects, schedule_id, bench.now)


def count(bench: Bench, table: Any, job_id: str | None = None) -> int:
    statement = select(func.count()).select_from(table)
    with bench.db.read() as conn:
        return int(conn.execute(statement.where(table.c.job_id == job_id) if job_id else statement).scalar_one())


def left(bench: Bench, job_id: str) -> list[str]:
    return [row.custom_id for row in bench.queries(job_id)]


def objects(bench: Bench, prefix: str) -> list[str]:
    return [entry.key for entry in bench.objects.list(prefix)]


def test_of_an_old_run_only_what_later_runs_reuse_stays(bench: Bench):
    schedule_id = bench.schedule(keep_runs=1, parquet=True)
    first = bench.run()
    bench.lines = [*rows(2), {**rows(1)[0], "custom_id": "another"}]
    second = bench.run()
    assert keep(bench, schedule_id) == 1
    assert left(bench, first.job_id) == ["row-0", "row-1"]
    assert bench.job(first.job_id).rows_kept == 2
    assert count(bench, StoredResult.__table__) == 3
    assert not objects(bench, f"{first.output_prefix}/")
    assert [key for key in objects(bench, f"jobs/{first.job_id}/") if "/traces/" not in key] == []
    slot = bench.slots()[0]
    assert (slot.output_prefix, slot.removed_at, slot.report["rows"]) == (None, bench.now, 3)
    assert bench.objects.exists(f"{second.output_prefix}/manifest.json")
    assert len(objects(bench, "results/")) == 3
    assert keep(bench, schedule_id) == 0
    lines = [line for _, line in result_lines(bench.db, bench.objects, second.job_id, trace=True)]
    assert [bool(line["trace"]["stages"]) for line in lines] == [True] * 3
    assert bench.run().report["reused"] == 3


def test_a_result_goes_with_the_last_kept_run_that_took_it_over(bench: Bench):
    schedule_id = bench.schedule(keep_runs=2)
    first = bench.run()
    bench.lines = rows(1)
    for _ in range(2):
        bench.run()
        keep(bench, schedule_id)
    assert left(bench, first.job_id) == ["row-0"]
    bench.lines = [{**rows(1)[0], "question": "And now?"}]
    for _ in range(2):
        bench.run()
        keep(bench, schedule_id)
    assert left(bench, first.job_id) == []
    assert not objects(bench, f"jobs/{first.job_id}/")
    assert [bench.job(slot.job_id).rows_kept for slot in bench.slots()] == [0, 0, 0, None, None]
    assert count(bench, StoredResult.__table__) == 1
    assert count(bench, Query.__table__) == 2
    assert count(bench, Call.__table__, first.job_id) == 0


def test_rows_and_objects_do_not_grow_with_the_number_of_runs(bench: Bench):
    schedule_id = bench.schedule(keep_runs=1, parquet=True)
    sizes = []
    for number in range(6):
        bench.lines = [*rows(2), {**rows(1)[0], "question": f"What is new on day {number}?"}]
        bench.lines[-1]["custom_id"] = "today"
        bench.run()
        keep(bench, schedule_id)
        tables = (Query, StoredResult)
        sizes.append([*(count(bench, table.__table__) for table in tables), len(objects(bench, ""))])
        # Searches of one question differ by a call or two.
        assert count(bench, Call.__table__) < 40
    assert sizes[2:] == [sizes[2]] * 4


def test_another_schedule_over_the_same_rows_keeps_what_it_took_over(bench: Bench):
    mine, other = bench.schedule(keep_runs=1), bench.schedule()
    bench.tick(600)
    for _ in range(2):
        jobs = bench.start()
        bench.work(*jobs)
        bench.finish()
    holder = bench.slots(mine)[0]
    taker = bench.run_now(other)
    assert taker.report["reused"] == 3
    bench.lines = [{**rows(1)[0], "question": "Something else?"}]
    bench.run_now(mine)
    keep(bench, mine)
    assert len(left(bench, holder.job_id)) == 3
    assert len([line for _, line in result_lines(bench.db, bench.objects, taker.job_id, trace=True)]) == 3


def test_a_run_goes_after_so_many_days_and_the_one_to_compare_with_stays(bench: Bench):
    schedule_id = bench.schedule(keep_days=2)
    first, second = bench.run(), bench.run()
    bench.now += 3 * DAY_S
    assert keep(bench, schedule_id) == 1
    assert [slot.removed_at is None for slot in bench.slots()] == [False, True]
    assert bench.objects.exists(f"{second.output_prefix}/manifest.json")
    bench.lines = [*rows(2), {**rows(1)[0], "custom_id": "another"}]
    report = bench.run_now(schedule_id).report
    assert (report["previous_slot_id"], report["new"], report["removed"], report["reused"]) == (second.id, 1, 1, 2)
    assert first.status == "done"


def test_failed_runs_do_not_push_out_good_ones(bench: Bench):
    schedule_id = bench.schedule(keep_runs=1, failed_share=0.0, on_bad_row="skip")
    good = bench.run()
    bench.lines = [*rows(1), {"custom_id": "bad", "question": "?", "images": []}]
    bad = [bench.run() for _ in range(3)]
    assert keep(bench, schedule_id) == 0
    bench.lines = rows(3)
    bench.run()
    assert keep(bench, schedule_id) == 4
    assert [len(left(bench, slot.job_id)) for slot in (good, *bad)] == [3, 0, 0, 0]


def test_days_pass_where_nothing_runs(bench: Bench):
    schedule_id = bench.schedule(keep_days=1)
    bench.run(), bench.run()
    with bench.db.write() as conn:
        schedules.change(conn, schedule_id, {"next_at": None}, bench.now)
    sweeper = Sweeper(bench.db, bench.objects, bench.clock)
    sweeper.sweep()
    assert [slot.removed_at for slot in bench.slots()] == [None, None]
    bench.now += EVERY_S - 1
    sweeper.sweep()
    bench.now += 2 * DAY_S
    sweeper.sweep()
    assert [slot.removed_at for slot in bench.slots()] == [bench.now, None]


def test_a_process_that_died_between_marking_and_removing_is_made_up_for(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    schedule_id = bench.schedule(keep_runs=1)
    first = bench.run()
    bench.lines = rows(1)
    bench.run()

    def killed(*_args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.schedules.retention._remove_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            keep(bench, schedule_id)
    assert len(left(bench, first.job_id)) == 3
    Sweeper(bench.db, bench.objects, bench.clock).sweep()
    assert left(bench, first.job_id) == ["row-0"]


def test_a_file_that_somebody_uploaded_is_never_the_schedules_to_remove(bench: Bench):
    schedule_id = bench.schedule(keep_runs=1)
    first = bench.run()
    with bench.db.read() as conn:
        mine = files.get(conn, "default", bench.job(first.job_id).input_file_id)
    assert mine is not None
    with bench.db.write() as conn:
        values = {"id": new_id("file"), "project_id": "default", "purpose": "batch", "filename": "mine.jsonl"}
        files.create(conn, **values, bytes=1, sha256=mine.sha256, object_key=mine.object_key, now=bench.now)
    bench.run()
    keep(bench, schedule_id)
    assert bench.objects.exists(mine.object_key)
    bench.lines = rows(2)
    bench.run(), keep(bench, schedule_id)
    with bench.db.read() as conn:
        assert files.get(conn, "default", mine.id) is None
        assert files.get(conn, "default", values["id"]) is not None
    assert bench.objects.exists(mine.object_key)


def test_rows_that_did_not_change_are_read_from_one_file_until_no_kept_run_has_it(bench: Bench):
    schedule_id = bench.schedule(keep_runs=1)
    first, second = bench.run(), bench.run()
    keep(bench, schedule_id)
    file_id = bench.job(first.job_id).input_file_id
    assert bench.job(second.job_id).input_file_id == file_id
    with bench.db.read() as conn:
        row = files.get(conn, "default", file_id)
    assert row is not None
    assert bench.objects.exists(row.object_key)
    bench.lines = rows(2)
    bench.run(), keep(bench, schedule_id)
    assert not bench.objects.exists(row.object_key)
    bench.lines = rows(3)
    assert bench.run().status == "done"


def test_a_removed_job_is_not_retried_or_read_by_halves(bench: Bench):
    schedule_id = bench.schedule(keep_runs=1)
    first = bench.run()
    bench.run(), keep(bench, schedule_id)
    with pytest.raises(BadInput, match=r"keep_days, keep_runs") as refused:
        retry_job(bench.db, first.job_id, bench.now, "why")
    assert refused.value.code == "results_removed"


def test_flips_against_a_run_that_is_gone_are_told_from_the_report(bench: Bench):
    schedule_id = bench.schedule(keep_runs=1)
    bench.run()
    for seed in range(1, 20):
        bench.lines = rows(3, policy={"seed": seed})
        slot = bench.run()
        if slot.report["flips"]["count"]:
            break
    with bench.db.read() as conn:
        before = flips_of(conn, slot, after_line=0, limit=10)
    keep(bench, schedule_id)
    with bench.db.read() as conn:
        after = flips_of(conn, slot, after_line=0, limit=10)
    assert (before.forgotten, after.forgotten) == (False, True)
    assert before.rows
    told = [[flip[name] for name in ("custom_id", "answer", "previous_answer")] for flip in before.rows]
    assert [[flip[name] for name in ("custom_id", "answer", "previous_answer")] for flip in after.rows] == told


def test_retention_of_nothing(bench: Bench):
    assert keep(bench, bench.schedule()) == 0
    assert keep(bench, "gone") == 0


@pytest.fixture
def postgres_bench(postgres_url: str, tmp_path: Path) -> Iterator[Bench]:
    database = open_database(postgres_url)
    yield Bench(database, open_objects(Settings(data_dir=tmp_path / "data")))
    database.close()


def test_what_is_being_taken_over_is_not_removed(postgres_bench: Bench):
    """A run that reads stored results while retention would remove them: one waits for the other."""
    bench = postgres_bench
    schedule_id = bench.schedule(keep_runs=1)
    holder = bench.run()
    bench.lines = [{**rows(1)[0], "question": "Something else?"}]
    bench.run()
    other = bench.schedule()
    bench.lines = rows(3)
    bench.run_now(other, work=False)
    (job_id,) = bench.start()
    done = threading.Event()

    def remove() -> None:
        keep(bench, schedule_id)
        done.set()

    from storage import reuse

    keys = [row.content_key for row in bench.queries(holder.job_id)]
    thread = threading.Thread(target=remove)
    with bench.db.write() as conn:
        assert len(reuse.known(conn, keys, hold=True)) == 3
        thread.start()
        wait_until(lambda: _waiting(bench), 20, what="retention to wait for the lock")
        assert not done.is_set()
    thread.join(20)
    assert done.is_set()
    ingest(bench.db, bench.objects, SETTINGS, job_id, bench.clock)
    assert left(bench, holder.job_id) == []
    assert [row.reused_from for row in bench.queries(job_id)] == [None] * 3


def _waiting(bench: Bench) -> bool:
    with bench.db.read() as conn:
        found = conn.exec_driver_sql("select count(*) from pg_locks where not granted").scalar_one()
    assert found
    return True


def test_rows_that_outlive_a_deleted_schedule_go_with_the_last_run_that_reuses_them(bench: Bench):
    mine, other = bench.schedule(keep_runs=1), bench.schedule(keep_runs=1)
    first = bench.run_now(mine)
    bench.run_now(other)
    bench.lines = [{**rows(1)[0], "question": "Something else?"}]
    bench.run_now(mine), keep(bench, mine)
    with bench.db.write() as conn:
        schedules.remove(conn, mine)
    sweeper = Sweeper(bench.db, bench.objects, bench.clock)
    sweeper.sweep()
    assert len(left(bench, first.job_id)) == 3
    bench.run_now(other), keep(bench, other)
    bench.now += EVERY_S
    sweeper.sweep()
    assert left(bench, first.job_id) == []
    assert bench.job(first.job_id).rows_kept == 0


def test_leases_of_schedulers_that_died_are_forgotten_and_those_of_living_ones_are_not(bench: Bench):
    with bench.db.write() as conn:
        for name, until in (("slot:1", bench.now - EVERY_S - 1), ("slot:2", bench.now), ("dispatch", 0.0)):
            assert duties.take(conn, name, "somebody", until - 1, 1)
    Sweeper(bench.db, bench.objects, bench.clock).sweep()
    with bench.db.read() as conn:
        assert set(conn.scalars(select(Duty.__table__.c.name))) == {"slot:2", "dispatch"}
