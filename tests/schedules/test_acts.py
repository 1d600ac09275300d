from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.schedules.acts import pause_schedule, resume_schedule, run_now
from orchestrator.schedules.backfill import BackfillRequest, plan_backfill, run_backfill
from orchestrator.schedules.define import Author, ScheduleDefinition, put_schedule
from reasoning.errors import BadInput
from storage.tables import AuditEntry
from tests.schedules.bench import NOON, Bench, new_id

ME = Author("default", "key_me")


@pytest.fixture
def bench(sqlite_bench: Bench) -> Bench:
    return sqlite_bench


def change(bench: Bench, schedule_id: str, rule: dict[str, Any], **options: Any) -> list[Any]:
    row = bench.row(schedule_id)
    data = {"name": row.name.replace("_", "-"), "dataset": bench.dataset_id, "rule": rule, "options": options}
    with bench.db.write() as conn:
        definition = ScheduleDefinition.from_mapping(data)
        return put_schedule(conn, replace(definition, name=row.name), ME, bench.now, new_id)[1]


def pause(bench: Bench, schedule_id: str) -> None:
    with bench.db.write() as conn:
        pause_schedule(conn, bench.row(schedule_id), bench.now, "key_me", "the bucket moves")


def resume(bench: Bench, schedule_id: str) -> None:
    with bench.db.write() as conn:
        resume_schedule(conn, bench.row(schedule_id), bench.now, "key_me", "moved")


def log(bench: Bench, schedule_id: str) -> list[tuple[str, str, str | None]]:
    table = AuditEntry.__table__
    statement = select(table.c.actor, table.c.action, table.c.reason).where(table.c.subject == schedule_id)
    with bench.db.read() as conn:
        return [tuple(row) for row in conn.execute(statement.order_by(table.c.id))]


def test_a_pause_is_kept_with_its_note_and_resuming_fires_nothing_old(bench: Bench):
    schedule_id = bench.schedule()
    bench.now += 10
    pause(bench, schedule_id)
    row = bench.row(schedule_id)
    assert (row.paused_by, row.paused_reason) == ("key_me", "the bucket moves")
    bench.tick(1200)
    assert bench.statuses() == ["skipped(paused)"] * 2
    bench.now += 700
    resume(bench, schedule_id)
    assert bench.statuses() == ["skipped(paused)"] * 3
    assert bench.tick(0) == 0
    bench.tick(500)
    assert bench.statuses()[3:] == ["pending"]
    assert log(bench, schedule_id) == [
        ("key_me", "schedule.pause", "the bucket moves"),
        ("key_me", "schedule.resume", "moved"),
    ]


def test_pausing_while_no_scheduler_runs_decides_what_was_due_before(bench: Bench):
    schedule_id = bench.schedule()
    bench.now += 630
    pause(bench, schedule_id)
    assert bench.statuses() == ["skipped(paused)"]
    bench.now += 1000
    resume(bench, schedule_id)
    bench.tick(0)
    assert "pending" not in bench.statuses()


def test_a_waiting_slot_is_skipped_by_a_pause_and_a_running_one_goes_on(bench: Bench):
    schedule_id = bench.schedule(overlap="queue_all")
    bench.tick(600)
    job_id = bench.start()[0]
    bench.tick(600)
    pause(bench, schedule_id)
    assert bench.statuses() == ["fired", "skipped(paused)"]
    bench.work(job_id)
    bench.finish()
    assert bench.statuses()[0] == "done(answered)"


def test_running_now_moves_no_slot_and_says_who(bench: Bench):
    schedule_id = bench.schedule()
    bench.now += 100
    before = bench.row(schedule_id)
    with bench.db.write() as conn:
        slot_id = run_now(conn, before, bench.now, "key_me")
    assert (bench.row(schedule_id).next_at, bench.row(schedule_id).runs) == (before.next_at, before.runs)
    with pytest.raises(BadInput, match="waits already"), bench.db.write() as conn:
        run_now(conn, before, bench.now + 1, "key_me")
    bench.work(*bench.start())
    bench.finish()
    slot = bench.slots()[0]
    assert (slot.id, slot.origin, slot.asked_by, slot.status) == (slot_id, "manual", "key_me", "done")
    bench.now = NOON + 600
    assert bench.tick(0) == 1


def test_a_run_by_hand_waits_for_the_one_under_way_whatever_the_policy(bench: Bench):
    schedule_id = bench.schedule(overlap="skip")
    bench.tick(600)
    job_id = bench.start()[0]
    with bench.db.write() as conn:
        run_now(conn, bench.row(schedule_id), bench.now + 5, "key_me")
    bench.now += 5
    assert bench.start() == []
    bench.work(job_id)
    bench.finish()
    assert len(bench.start()) == 1


def test_a_changed_rule_takes_effect_from_now_and_slots_keep_their_version(bench: Bench):
    schedule_id = bench.schedule()
    bench.tick(600)
    bench.now += 700
    changes = change(bench, schedule_id, {"kind": "interval", "every_s": 60}, catch_up="all", overlap="allow")
    assert {entry.field for entry in changes} == {"rule", "options"}
    assert [slot.version for slot in bench.slots()] == [1, 1]
    assert bench.row(schedule_id).version == 2
    bench.tick(0)
    assert len(bench.slots()) == 2
    bench.tick(60)
    assert [(slot.version, slot.overlap) for slot in bench.slots()] == [(1, "skip"), (1, "skip"), (2, "allow")]


def test_a_rule_under_which_nothing_would_run_is_refused(bench: Bench):
    schedule_id = bench.schedule()
    with pytest.raises(BadInput, match="nothing would run"):
        change(bench, schedule_id, {"kind": "cron", "cron": "0 3 * * *", "end": "2026-11-23T12:01"})
    with pytest.raises(BadInput, match="nothing would run"):
        change(bench, schedule_id, {"kind": "cron", "cron": "0 0 * 2 MON#5"})


def past(bench: Bench, **more: Any) -> BackfillRequest:
    return BackfillRequest(start=NOON, end=bench.now, **more)


def test_a_backfill_runs_what_was_missed_one_by_one_and_behind_other_work(bench: Bench):
    schedule_id = bench.schedule(catch_up="none", overlap="skip")
    bench.run()
    bench.tick(3690)
    with bench.db.read() as conn:
        plan = plan_backfill(conn, bench.row(schedule_id), past(bench), bench.now)
    assert [slot.was for slot in plan.slots] == ["absent"] + ["missed"] * 6
    assert plan.rows_each == 3
    assert plan.cost is not None
    with bench.db.write() as conn:
        run_backfill(conn, bench.row(schedule_id), past(bench), bench.now, "key_me")
    backfilled = [slot for slot in bench.slots() if slot.origin == "backfill"]
    assert {(slot.overlap, slot.priority, slot.asked_by) for slot in backfilled} == {
        ("queue_all", "background", "key_me")
    }
    for _ in range(7):
        started = bench.start()
        assert len([job for job in started if bench.job(job).priority == "background"]) == 1
        bench.work(*started)
        bench.finish()
    done = [slot.status for slot in bench.slots() if slot.origin == "backfill"]
    assert done == ["done"] * 7


def test_a_backfill_does_not_hold_up_the_slots_of_the_rule(bench: Bench):
    schedule_id = bench.schedule(catch_up="none")
    bench.tick(3690)
    with bench.db.write() as conn:
        run_backfill(conn, bench.row(schedule_id), past(bench), bench.now, "key_me")
    bench.tick(510)
    assert bench.slots()[-1].status == "pending"
    assert len(bench.start()) == 2


def test_a_second_backfill_of_a_slot_is_a_new_attempt(bench: Bench):
    schedule_id = bench.schedule(catch_up="none")
    bench.lines = []
    bench.tick(1290)
    for attempt in (1, 2):
        with bench.db.write() as conn:
            which = "missing" if attempt == 1 else "failed"
            plan = run_backfill(conn, bench.row(schedule_id), past(bench, which=which), bench.now, "me")
        # The third is the slot at noon itself, from before the schedule was made.
        assert [slot.attempt for slot in plan.slots] == [attempt] * 3
        for _ in plan.slots:
            bench.start()
    table = [(slot.due_at, slot.attempt, slot.status) for slot in bench.slots() if slot.origin == "backfill"]
    assert len(set(table)) == 6
    assert {status for *_, status in table} == {"failed"}


@pytest.mark.parametrize(
    ("request_fields", "code"),
    [
        ({"overlap": "skip"}, "contradiction"),
        ({"which": "some"}, "invalid_value"),
        ({"cap": 501}, "invalid_value"),
        ({"cap": 2}, "too_many_slots"),
        ({"end": NOON + 10**9}, "invalid_value"),
        ({"start": NOON + 9000}, "invalid_value"),
    ],
)
def test_backfills_that_are_refused(bench: Bench, request_fields: dict[str, Any], code: str):
    schedule_id = bench.schedule()
    bench.now += 7200
    request = BackfillRequest(**{"start": NOON, "end": bench.now, **request_fields})
    with pytest.raises(BadInput) as refused, bench.db.read() as conn:
        plan_backfill(conn, bench.row(schedule_id), request, bench.now)
    assert refused.value.code == code


def test_many_slots_need_the_name_typed(bench: Bench):
    schedule_id = bench.schedule(catch_up="none")
    bench.tick(60 * 600 + 90)
    row = bench.row(schedule_id)
    with pytest.raises(BadInput, match=row.name) as refused, bench.db.write() as conn:
        run_backfill(conn, row, past(bench), bench.now, "me")
    assert refused.value.code == "confirmation_needed"
    with bench.db.write() as conn:
        plan = run_backfill(conn, row, past(bench, confirm=row.name, newest_first=True), bench.now, "me")
    assert len(plan.slots) == 61
    assert plan.slots[0].due_at == bench.now - 90
