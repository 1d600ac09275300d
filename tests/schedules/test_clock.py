from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select

from orchestrator.datasets.spec import Line
from orchestrator.schedules.due import slots_due
from orchestrator.schedules.records import plan_of
from reasoning.errors import BadInput, Transient
from storage import schedules, slots
from storage.database import Database, open_database
from storage.objects import open_objects
from storage.settings import Settings
from storage.tables import Delivery, Job
from tests.schedules.bench import NOON, Bench, rows

DAY = 86400.0


def jobs_by_slot(bench: Bench) -> list[str]:
    table = Job.__table__
    with bench.db.read() as conn:
        return sorted(conn.scalars(select(table.c.source_ref).where(table.c.source == "schedule")), key=int)


def events(bench: Bench) -> list[str]:
    with bench.db.read() as conn:
        return list(conn.scalars(select(Delivery.__table__.c.type).order_by(Delivery.__table__.c.id)))


def test_a_slot_and_its_job(bench: Bench):
    schedule_id = bench.schedule()
    assert bench.tick(599) == 0
    assert bench.tick(1) == 1
    assert bench.tick(0) == 0
    (job_id,) = bench.start()
    slot = bench.slots()[0]
    assert (slot.status, slot.due_at, slot.origin, slot.job_id) == ("fired", NOON + 600, "schedule", job_id)
    job = bench.job(job_id)
    assert (job.source, job.source_ref, job.status) == ("schedule", str(slot.id), "validating")
    assert bench.row(schedule_id).next_at == NOON + 1200
    assert bench.start() == []


@pytest.mark.parametrize(
    ("options", "outcomes"),
    [
        ({"catch_up": "none"}, {"missed(late)": 432}),
        ({}, {"missed(late)": 426, "missed(superseded)": 5, "pending": 1}),
        (
            {"catch_up": "all", "overlap": "queue_all", "catch_up_window_s": DAY, "catch_up_cap": 8},
            {"missed(late)": 288, "missed(over_cap)": 136, "pending": 8},
        ),
    ],
)
def test_three_days_of_downtime(bench: Bench, options: dict[str, Any], outcomes: dict[str, int]):
    schedule_id = bench.schedule(**options)
    bench.tick(3 * DAY + 90)
    found: dict[str, int] = {}
    for status in bench.statuses():
        found[status] = found.get(status, 0) + 1
    assert found == outcomes
    assert all(slot.note for slot in bench.slots() if slot.status == "missed")
    assert bench.row(schedule_id).cursor_at == bench.now
    assert bench.tick(0) == 0


def test_a_missed_slot_is_told_of_once(bench: Bench):
    bench.schedule(catch_up="none", alerts={"url": "http://127.0.0.1:9/"})
    bench.tick(DAY)
    bench.tick(1)
    assert events(bench) == ["schedule.missed"]


def test_a_slot_that_meets_a_running_one_is_skipped(bench: Bench):
    bench.schedule()
    bench.tick(600)
    bench.start()
    bench.tick(600)
    assert bench.statuses() == ["fired", "skipped(overlap)"]


def test_one_may_wait(bench: Bench):
    bench.schedule(overlap="queue_one")
    bench.tick(600)
    job_id = bench.start()[0]
    bench.tick(600)
    assert bench.start() == []
    bench.tick(600)
    assert bench.statuses() == ["fired", "pending", "skipped(queue_full)"]
    bench.work(job_id)
    bench.finish()
    assert len(bench.start()) == 1
    assert bench.statuses()[:2] == ["done(answered)", "fired"]


def test_all_may_wait_and_run_in_order(bench: Bench):
    bench.schedule(overlap="queue_all", queue_cap=3)
    started = []
    for _ in range(5):
        bench.tick(600)
        started += bench.start()
    assert bench.statuses() == ["fired", "pending", "pending", "pending", "skipped(queue_full)"]
    for _ in range(3):
        bench.work(started[-1])
        bench.finish()
        started += bench.start()
    assert jobs_by_slot(bench) == [str(slot.id) for slot in bench.slots()[:4]]


def test_all_at_once(bench: Bench):
    bench.schedule(overlap="allow")
    for _ in range(3):
        bench.tick(600)
        bench.start()
    assert bench.statuses() == ["fired"] * 3


def test_a_running_one_is_cancelled_for_the_next(bench: Bench):
    bench.schedule(overlap="cancel_running")
    bench.tick(600)
    job_id = bench.start()[0]
    bench.tick(600)
    bench.tick(600)
    assert bench.statuses() == ["fired", "cancelled(replaced)", "pending"]
    assert bench.job(job_id).status == "cancelling"
    assert bench.start() == []
    bench.work(job_id)
    bench.finish()
    assert len(bench.start()) == 1
    assert bench.statuses() == ["cancelled(cancelled)", "cancelled(replaced)", "fired"]


def test_schedules_over_one_dataset_do_not_wait_for_each_other(bench: Bench):
    bench.schedule()
    bench.schedule()
    bench.tick(600)
    assert len(bench.start()) == 2


def test_jitter_delays_the_run_and_not_the_slot(bench: Bench):
    bench.schedule({"kind": "interval", "every_s": 600, "jitter_s": 300})
    bench.tick(600)
    slot = bench.slots()[0]
    assert slot.due_at == NOON + 600
    assert NOON + 600 < slot.begins_at <= NOON + 900
    assert bench.start() == []
    bench.tick(300)
    assert len(bench.start()) == 1


def test_a_schedule_ends_after_its_maximum_of_runs(bench: Bench):
    schedule_id = bench.schedule({"kind": "interval", "every_s": 600, "max_runs": 2})
    for _ in range(4):
        bench.run()
    assert bench.statuses() == ["done(answered)"] * 2
    assert bench.row(schedule_id).next_at is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BadInput("the folder scenes is gone; put it back", code="source_missing"), "source_missing"),
        (BadInput("the column question is gone", code="schema_changed"), "schema_changed"),
    ],
)
def test_a_source_that_fails_half_way_fails_the_slot_whole(bench: Bench, error: BadInput, reason: str):
    schedule_id = bench.schedule()
    good = bench.run()

    def broken() -> Iterator[Line]:
        yield rows(1)[0]
        raise error

    bench.lines = broken
    bench.run()
    slot = bench.slots()[-1]
    assert (slot.status, slot.reason, slot.job_id) == ("failed", reason, None)
    assert slot.note.startswith(f'dataset "{bench.dataset_id}", ')
    assert error.message in slot.note
    assert bench.row(schedule_id).failures == 1
    bench.lines = rows(3)
    again = bench.run()
    assert again.report["reused"] == 3
    assert again.report["previous_slot_id"] == good.id
    assert bench.row(schedule_id).failures == 0


def test_an_empty_dataset_is_said(bench: Bench):
    bench.schedule()
    bench.lines = []
    bench.run()
    assert bench.statuses() == ["failed(empty_dataset)"]


def test_refused_rows_fail_the_slot_with_the_first_reason(bench: Bench):
    bench.schedule()
    bench.lines = [*rows(1), {"custom_id": "b", "question": "", "images": ["gone.png"]}]
    slot = bench.run()
    assert (slot.status, slot.reason) == ("failed", "invalid_value")
    assert "row 2: question is empty" in slot.note


def test_a_source_that_does_not_answer_is_tried_again_and_then_fails(bench: Bench):
    def away() -> Iterator[Line]:
        raise Transient("the bucket refused the credentials: ExpiredToken")
        yield {}

    bench.schedule()
    bench.lines = away
    bench.tick(600)
    assert bench.start() == []
    assert bench.statuses() == ["pending(source_unreachable)"]
    assert "ExpiredToken" in bench.slots()[0].note
    assert bench.start() == []
    bench.lines = rows(3)
    bench.tick(16)
    assert len(bench.start()) == 1
    bench.work(bench.slots()[0].job_id)
    bench.finish()
    bench.lines = away
    bench.tick(600)
    for _ in range(70):
        bench.start()
        bench.now += 15
    assert bench.statuses()[-1] == "failed(source_unreachable)"


def test_failures_in_a_row_pause_the_schedule(bench: Bench):
    schedule_id = bench.schedule(pause_after_failures=2, alerts={"url": "http://127.0.0.1:9/"})
    bench.lines = []
    for _ in range(4):
        bench.run()
    row = bench.row(schedule_id)
    assert row.paused_by == "stagebeam"
    assert "2 runs in a row failed" in row.paused_reason
    assert bench.statuses() == ["failed(empty_dataset)"] * 2 + ["skipped(paused)"] * 2
    assert events(bench) == ["schedule.failed", "schedule.failed", "schedule.paused"]


def test_a_rule_that_cannot_be_read_any_more_pauses_its_schedule_alone(bench: Bench):
    broken, sound = bench.schedule(), bench.schedule()
    with bench.db.write() as conn:
        schedules.change(conn, broken, {"rule": {"kind": "cron", "cron": "0 3 * * *", "zone": "Gone/Zone"}}, bench.now)
    bench.tick(600)
    assert "Gone/Zone" in bench.row(broken).paused_reason
    assert len(bench.slots(sound)) == 1


@pytest.fixture
def postgres_bench(postgres_url: str, tmp_path: Path) -> Iterator[Bench]:
    database = open_database(postgres_url)
    yield Bench(database, open_objects(Settings(data_dir=tmp_path / "data")))
    database.close()


def test_two_schedulers_at_once_fire_nothing_twice(postgres_bench: Bench):
    bench = postgres_bench
    ids = [bench.schedule(overlap="allow") for _ in range(12)]
    barrier = threading.Barrier(2)
    started: list[str] = []

    def scheduler(owner: str) -> None:
        for _ in range(5):
            if barrier.wait(20) == 0:
                bench.now += 600
            barrier.wait(20)
            bench.tick()
            with bench.db.read() as conn:
                open_slots = slots.startable(conn, bench.now, 100)
            started.extend(filter(None, (bench.starter(owner).start(slot_id) for slot_id in open_slots)))

    threads = [threading.Thread(target=scheduler, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    found = bench.slots()
    assert len(found) == 60
    assert len({(slot.schedule_id, slot.due_at) for slot in found}) == 60
    assert {slot.status for slot in found} == {"fired"}
    assert sorted(started) == sorted(slot.job_id for slot in found)
    assert jobs_by_slot(bench) == [str(slot.id) for slot in found]
    assert {slot.schedule_id for slot in found} == set(ids)


class Killed(BaseException):
    """A process that ends here and now."""


class Statements:
    """Counts the statements of a database and dies at one of them."""

    def __init__(self, database: Database, fatal: int) -> None:
        self.count = 0
        self.fatal = fatal
        for engine in (database._writers, database._readers):
            event.listen(engine, "before_cursor_execute", self)

    def __call__(self, *_args: Any) -> None:
        self.count += 1
        if self.count == self.fatal:
            raise Killed


def _round(bench: Bench) -> None:
    bench.tick()
    bench.start()


def test_a_scheduler_killed_between_any_two_statements_loses_and_repeats_nothing(sqlite_url: str, tmp_path: Path):
    database = open_database(sqlite_url)
    bench = Bench(database, open_objects(Settings(data_dir=tmp_path / "data")), lines=rows(2))
    statements = Statements(database, fatal=0)
    fatal, alive = 0, False
    while not alive:
        fatal += 1
        bench.now = float(-(-bench.now // 600) * 600)
        schedule_id = bench.schedule(catch_up="all", overlap="allow", catch_up_window_s=DAY)
        bench.now += 1800
        statements.count, statements.fatal = 0, fatal
        try:
            _round(bench)
            alive = True
            statements.fatal = 0
        except Killed:
            statements.fatal = 0
            bench.now += 61  # the lease of the dead one runs out
            _round(bench)
        found = bench.slots(schedule_id)
        assert [slot.status for slot in found] == ["fired"] * 3, f"killed at statement {fatal}"
        assert len({slot.due_at for slot in found}) == 3
        with database.read() as conn:
            made = conn.execute(select(func.count()).select_from(Job.__table__)).scalar_one()
        assert made == 3 * fatal
        with database.write() as conn:
            schedules.change(conn, schedule_id, {"next_at": None}, bench.now)
    assert fatal > 40
    database.close()


def test_a_finisher_killed_between_any_two_statements_ends_the_slot_once(sqlite_url: str, tmp_path: Path):
    database = open_database(sqlite_url)
    bench = Bench(database, open_objects(Settings(data_dir=tmp_path / "data")), lines=rows(2))
    statements = Statements(database, fatal=0)
    schedule_id = bench.schedule(alerts={"url": "http://127.0.0.1:9/"}, failed_share=0.0, on_bad_row="skip")
    bench.lines = [*rows(1), {"custom_id": "bad", "question": "?", "images": []}]
    fatal, alive = 0, False
    while not alive:
        fatal += 1
        bench.tick(600)
        bench.work(*bench.start())
        statements.count, statements.fatal = 0, fatal
        try:
            bench.finish()
            alive = True
            statements.fatal = 0
        except Killed:
            statements.fatal = 0
            bench.finish()
        assert bench.statuses(schedule_id) == ["failed(unanswered)"] * fatal
        assert bench.row(schedule_id).failures == fatal
        assert events(bench) == ["schedule.failed"] * fatal
    assert fatal > 10
    database.close()


def test_deciding_is_the_pure_function_and_nothing_else(bench: Bench):
    schedule_id = bench.schedule({"kind": "cron", "cron": "*/7 * * * *"}, catch_up="none")
    row = bench.row(schedule_id)
    expected = slots_due(plan_of(row), NOON, NOON + DAY).slots
    bench.tick(DAY)
    assert [slot.due_at for slot in bench.slots()] == [slot.due_at for slot in expected]
