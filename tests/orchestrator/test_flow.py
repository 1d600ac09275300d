"""The way of a query through the rows: ends once, the same whatever is lost, and everything adds up."""

from __future__ import annotations

import random
from collections import Counter

import orjson
import pytest

from orchestrator.actions import cancel_job, pause_job, resume_job, retry_job
from orchestrator.advance import advance
from orchestrator.cancelling import GRACE_S
from orchestrator.dispatch import dispatch
from orchestrator.fold import fold
from orchestrator.reconcile import reconcile
from orchestrator.results import result_lines
from orchestrator.traces import trace_of
from reasoning.errors import BadInput
from storage import files
from storage.database import Database
from storage.objects import ObjectStore, open_objects
from storage.settings import Settings
from tests.orchestrator.driving import Stack, Wire
from workers.engine.scripted import Script

POLICY = {"candidates": 3, "seed": 7}


@pytest.fixture
def store(tmp_path: object) -> ObjectStore:
    return open_objects(Settings(data_dir=tmp_path))  # type: ignore[arg-type]


@pytest.fixture
def stack(database: Database, store: ObjectStore) -> Stack:
    return Stack(database, store)


def test_a_job_runs_to_its_files_and_counts_add_up(stack: Stack) -> None:
    job_id = stack.submit("job_a", 20, policy=POLICY)
    stack.run(job_id)
    job = stack.job(job_id)
    assert (job.status, job.total, job.waiting, job.running) == ("completed", 20, 0, 0)
    assert job.done + job.degraded + job.failed == 20
    assert Counter(row.status for row in stack.queries(job_id)) == Counter(
        {name: getattr(job, name) for name in ("done", "degraded", "failed") if getattr(job, name)}
    )
    with stack.db.read() as conn:
        output = files.get(conn, "default", job.output_file_id)
    assert output is not None
    with stack.objects.open(output.object_key) as stream:
        lines = [orjson.loads(line) for line in stream.read().splitlines()]
    assert [line["custom_id"] for line in lines] == [f"q{line}" for line in range(1, 21)]
    assert all(line["answer"] for line in lines)
    assert job.error_file_id is None


def test_tokens_add_up_to_what_the_engine_counted(stack: Stack) -> None:
    job_id = stack.submit("job_a", 10, policy=POLICY)
    stack.run(job_id)
    job = stack.job(job_id)
    generated = sum(call.usage["generated_tokens"] for call in stack.calls(job_id) if call.usage)
    assert job.kept_tokens + job.discarded_tokens + job.judged_tokens == generated
    assert job.prompt_tokens == sum(call.usage["prompt_tokens"] for call in stack.calls(job_id) if call.usage)
    assert job.candidates == sum(len(call.outcome.get("candidates", ())) for call in stack.calls(job_id))


@pytest.mark.parametrize("loss", [0.2, 0.7])
def test_losing_messages_loses_time_and_nothing_else(database: Database, store: ObjectStore, loss: float) -> None:
    calm = Stack(database, store)
    calm.run(calm.submit("job_calm", 12, policy=POLICY))
    lossy = Stack(database, store, wire=Wire(loss, random.Random(1)))
    lossy.run(lossy.submit("job_lossy", 12, policy=POLICY), rounds=600)
    assert lossy.answers("job_lossy") == calm.answers("job_calm")


def test_a_flush_in_the_middle_changes_no_answer(database: Database, store: ObjectStore) -> None:
    calm = Stack(database, store)
    calm.run(calm.submit("job_calm", 12, policy=POLICY))
    stack = Stack(database, store)
    job_id = stack.submit("job_flushed", 12, policy=POLICY)
    with stack.worker() as pipeline:
        for _ in range(3):
            stack.step(pipeline)
            stack.wire.messages.clear()
    stack.run(job_id)
    assert stack.answers(job_id) == calm.answers("job_calm")


def test_a_query_without_an_open_call_is_planned_again_once_its_wake_up_is_overdue(stack: Stack) -> None:
    stack.submit("job_a", 4, policy=POLICY)
    with stack.worker() as pipeline:
        stack.send(dispatch(stack.db, stack.settings, stack.now).outgoing)
        calls = [call_id for message in stack.wire.messages for call_id in message.arguments["call_ids"]]
        pipeline.run(stack.wire.messages[0].task, calls, 6)
    stack.wire.messages.clear()
    again = [reconcile(stack.db, stack.settings, stack.wire.depth, stack.now)]
    stack.now += stack.settings.reconcile_s + 0.1
    again.append(reconcile(stack.db, stack.settings, stack.wire.depth, stack.now))
    assert [sum(len(item.call_ids) for item in each.outgoing) for each in again] == [0, 4]


def test_a_duplicate_advance_inserts_no_call_twice(stack: Stack) -> None:
    job_id = stack.submit("job_a", 4, policy=POLICY)
    with stack.worker() as pipeline:
        stack.step(pipeline)
    ids = [row.id for row in stack.queries(job_id)]
    advance(stack.db, ids, stack.now)
    keys = [(call.query_id, call.key) for call in stack.calls(job_id)]
    assert advance(stack.db, ids, stack.now).outgoing == []
    assert [(call.query_id, call.key) for call in stack.calls(job_id)] == keys
    assert len(set(keys)) == len(keys)


def test_the_wire_holds_a_window_whatever_the_job_holds(database: Database, store: ObjectStore) -> None:
    most = []
    for count in (30, 90):
        stack = Stack(database, store)
        stack.run(stack.submit(f"job_{count}", count, policy={"candidates": 2}))
        most.append(stack.wire.most)
    assert most[1] <= most[0] + 4


def _under_way(stack: Stack, job_id: str) -> dict[str, str]:
    """Work until some queries are done while others run and wait; the answers so far."""
    with stack.worker() as pipeline:
        while not stack.job(job_id).done:
            stack.step(pipeline)
    stack.send(dispatch(stack.db, stack.settings, stack.now).outgoing)
    job = stack.job(job_id)
    assert min(job.done, job.running, job.waiting) > 0
    return {row.custom_id: row.answer for row in stack.queries(job_id) if row.status == "done"}


def test_cancel_lets_what_runs_end_and_starts_nothing_new(stack: Stack) -> None:
    calm = stack.submit("job_calm", 60, policy=POLICY)
    stack.run(calm)
    job_id = stack.submit("job_a", 60, policy=POLICY)
    _under_way(stack, job_id)
    started = {row.custom_id for row in stack.queries(job_id) if row.status != "waiting"}
    assert cancel_job(stack.db, job_id, stack.now, "no longer needed") == "cancelling"
    assert cancel_job(stack.db, job_id, stack.now, "sent twice") == "cancelling"
    assert stack.job(job_id).status_reason == "no longer needed"
    stack.run(job_id)
    job = stack.job(job_id)
    assert (job.status, job.killed_at) == ("cancelled", None)
    assert {row[0] for row in stack.answers(job_id) if row[1] == "done"} == started
    assert [row for row in stack.answers(job_id) if row[0] in started] == [
        row for row in stack.answers(calm) if row[0] in started
    ]
    assert job.cancelled == 60 - len(started)
    assert job.error_file_id is not None


@pytest.mark.parametrize("asked_before", [False, True])
def test_cancel_at_once_gives_up_what_runs_and_keeps_what_is_finished(stack: Stack, asked_before: bool) -> None:
    job_id = stack.submit("job_a", 60, policy=POLICY)
    finished = _under_way(stack, job_id)
    if asked_before:
        cancel_job(stack.db, job_id, stack.now, "no longer needed")
    assert cancel_job(stack.db, job_id, stack.now, "I cannot wait", at_once=True) == "cancelling"
    with stack.worker() as pipeline:
        queued = [call.id for call in stack.calls(job_id) if call.status == "queued"]
        assert queued
        pipeline.run("generate", queued, 5)
        assert {call.status for call in stack.calls(job_id) if call.id in queued} == {"queued"}  # nobody takes them
    stack.run(job_id)
    job = stack.job(job_id)
    assert (job.status, job.status_reason) == ("cancelled", "I cannot wait")
    assert {row.custom_id: row.answer for row in stack.queries(job_id) if row.status == "done"} == finished
    assert job.cancelled == 60 - len(finished)
    assert job.error_file_id is not None
    assert {call.status for call in stack.calls(job_id)} <= {"done", "cancelled"}
    with pytest.raises(BadInput, match="cancelled"):
        pause_job(stack.db, job_id, stack.now, "too late")
    assert cancel_job(stack.db, job_id, stack.now, "late", at_once=True) == "cancelled"
    retry_job(stack.db, job_id, stack.now, "after all")
    assert stack.job(job_id).killed_at is None
    stack.run(job_id)
    assert stack.job(job_id).done == 60


def test_what_runs_in_a_cancelled_job_does_not_run_for_ever(stack: Stack) -> None:
    job_id = stack.submit("job_a", 60, policy=POLICY)
    _under_way(stack, job_id)
    cancel_job(stack.db, job_id, stack.now, "no longer needed")
    running = stack.job(job_id).running
    reconcile(stack.db, stack.settings, stack.wire.depth, stack.now + GRACE_S - 1)
    assert (stack.job(job_id).running, stack.job(job_id).waiting) == (running, 0)
    reconcile(stack.db, stack.settings, stack.wire.depth, stack.now + GRACE_S)
    assert (stack.job(job_id).running, stack.job(job_id).status) == (0, "finalizing")


def test_retry_starts_only_what_failed_and_gives_the_same_answers(database: Database, store: ObjectStore) -> None:
    calm = Stack(database, store)
    calm.run(calm.submit("job_calm", 10, policy=POLICY))
    stack = Stack(database, store, script=Script(read_images=False, crash=0.2))
    job_id = stack.submit("job_b", 10, policy=POLICY)
    stack.run(job_id)
    first = stack.job(job_id)
    assert first.failed > 0
    assert first.error_file_id is not None
    healed = Stack(database, store, now=stack.now)
    again = retry_job(database, job_id, healed.now, "engine repaired")
    assert again == first.failed
    healed.run(job_id)
    job = healed.job(job_id)
    assert (job.failed, job.done + job.degraded) == (0, 10)


def test_a_paused_job_admits_nothing_and_goes_on_after(stack: Stack) -> None:
    job_id = stack.submit("job_a", 30, policy=POLICY)
    with stack.worker() as pipeline:
        stack.step(pipeline)
        pause_job(stack.db, job_id, stack.now, "look at it first")
        for _ in range(30):
            stack.step(pipeline)
        held = stack.job(job_id)
        assert held.running == 0
        assert held.waiting > 0
    resume_job(stack.db, job_id)
    stack.run(job_id)
    assert stack.job(job_id).done == 30


def test_out_of_time_is_an_answer_or_an_explained_error(stack: Stack) -> None:
    job_id = stack.submit("job_a", 6, policy={**POLICY, "deadline_s": 5})
    with stack.worker():
        stack.send([])
    stack.wire.loss = 1.0
    stack.run(job_id)
    job = stack.job(job_id)
    assert job.expired + job.degraded == 6
    cut_off = [row.error for row in stack.queries(job_id) if row.status == "expired"]
    assert all((error["code"], error["retryable"]) == ("deadline", True) for error in cut_off)


def test_the_trace_reads_the_same_from_rows_and_from_its_part(stack: Stack) -> None:
    job_id = stack.submit("job_a", 3, policy=POLICY)
    stack.run(job_id)
    row = stack.queries(job_id)[1]
    with stack.db.read() as conn:
        before = trace_of(conn, stack.objects, row.id)
    assert before is not None
    assert [stage["stage"] for stage in before["stages"]] == ["summary", "caption", "reasoning", "conclusion"]
    with stack.db.write() as conn:
        conn.exec_driver_sql("DELETE FROM calls")
    with stack.db.read() as conn:
        assert trace_of(conn, stack.objects, row.id) == before
    lines = dict(result_lines(stack.db, stack.objects, job_id, trace=True))
    assert lines[row.line]["trace"] == before


def test_calls_leave_after_the_retention_time_and_traces_stay(stack: Stack) -> None:
    job_id = stack.submit("job_a", 3, policy=POLICY)
    stack.run(job_id)
    row = stack.queries(job_id)[0]
    with stack.db.read() as conn:
        before = trace_of(conn, stack.objects, row.id)
    settings = stack.settings.model_copy(update={"retention_s": 100.0})
    assert fold(stack.db, settings, stack.now + 50) == 0
    assert fold(stack.db, settings, stack.now + 200) == 1
    assert fold(stack.db, settings, stack.now + 300) == 0
    assert stack.calls(job_id) == []
    with stack.db.read() as conn:
        assert trace_of(conn, stack.objects, row.id) == before


def test_a_job_out_of_time_keeps_its_answers_and_explains_the_rest(stack: Stack) -> None:
    job_id = stack.submit("job_a", 40, policy=POLICY, expires_at=stack.now + 20)
    with stack.worker() as pipeline:
        while not stack.job(job_id).done:
            stack.step(pipeline)
    stack.now += 60
    stack.run(job_id)
    job = stack.job(job_id)
    assert job.status == "expired"
    assert job.done > 0
    assert job.expired > 0
    assert job.done + job.degraded + job.expired == 40
    cut_off = [row.error for row in stack.queries(job_id) if row.status == "expired"]
    assert {(error["code"], error["retryable"]) for error in cut_off} == {("job_expired", True)}
    assert {error["stage"] is None for error in cut_off} == {True, False}, "some waited and some ran"
    told = [error["message"] for error in cut_off]
    assert all("longer completion window" in text or "policy.deadline_s" in text for text in told)
    assert retry_job(stack.db, job_id, stack.now, "more time") == len(cut_off)
    stack.run(job_id)
    assert (stack.job(job_id).status, stack.job(job_id).expired) == ("completed", 0)
