from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select

from reasoning.errors import InvariantBroken
from storage import transitions
from storage.database import Database
from storage.tables import Call, Job, Query, Schedule, Slot, Worker
from storage.tables.schedules import Dataset
from storage.transitions import QueryMove, move_calls, move_job, move_queries, move_slot, move_worker
from tests.storage.rows import STATUSES, add_calls, add_job, counted, recounted

QUERIES = Query.__table__


def one(conn: Any, entity: Any, key: Any) -> Any:
    return conn.execute(select(entity.__table__).where(entity.__table__.c.id == key)).one()


@pytest.mark.parametrize("name", ["JOB", "QUERY", "CALL", "SLOT", "WORKER"])
def test_every_following_status_is_itself_a_status(name: str):
    moves: transitions.Moves = getattr(transitions, f"{name}_MOVES")
    assert {to for following in moves.values() for to in following} <= set(moves)


steps = st.lists(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(STATUSES), st.booleans()), max_size=6), max_size=8
)


@given(steps)
@settings(max_examples=40)
def test_counters_equal_the_rows_whatever_moves_are_tried(database: Database, batches: Any):
    with database.write() as conn:
        conn.execute(delete(Job.__table__))
        ids = add_job(conn, "job_1", queries=3) + add_job(conn, "job_2", queries=3)
    states = dict.fromkeys(ids, "waiting")
    for now, batch in enumerate(batches):
        wanted = {
            ids[n]: QueryMove(ids[n], "job_1" if n < 3 else "job_2", to, {"answer": f"{n}" if own else "same"})
            for n, to, own in batch
        }
        legal = {key for key, move in wanted.items() if move.to in transitions.QUERY_MOVES[states[key]]}
        broken = any(
            move.to not in transitions.QUERY_MOVES[states[key]] | {states[key]}
            and states[key] not in transitions.QUERY_ENDED
            for key, move in wanted.items()
        )
        try:
            with database.write() as conn:
                moved = move_queries(conn, list(wanted.values()), float(now))
        except InvariantBroken:
            assert broken
        else:
            assert not broken
            assert moved == legal
            states.update({key: wanted[key].to for key in legal})
        with database.read() as conn:
            for job_id in ("job_1", "job_2"):
                assert counted(conn, job_id) == recounted(conn, job_id)
            assert dict(conn.execute(select(QUERIES.c.id, QUERIES.c.status)).all()) == states


def test_the_first_end_stands_and_times_are_stamped(database: Database):
    with database.write() as conn:
        query, other = add_job(conn, queries=2)
        assert move_queries(conn, [QueryMove(query, "job_1", "running", {"stage": "SUMMARY"})], 1.0) == {query}
        usage = {"candidates": 4}
        ends = [
            QueryMove(query, "job_1", "done", {"answer": "a\0b", "usage": usage, "path": [["k", 0]]}),
            QueryMove(other, "job_1", "failed", {"error": {"code": "bad_line"}}),
        ]
        assert move_queries(conn, ends, 2.0) == {query, other}
    with database.write() as conn:
        late = [QueryMove(query, "job_1", to, {"answer": "late"}) for to in ("cancelled", "expired", "failed")]
        for move in late:
            assert move_queries(conn, [move], 3.0) == set()
        row = one(conn, Query, query)
        assert (row.status, row.answer, row.started_at, row.ended_at) == ("done", "a\ufffdb", 1.0, 2.0)
        assert (row.usage, row.path, row.stage) == (usage, [["k", 0]], "SUMMARY")
        assert one(conn, Query, other).error == {"code": "bad_line"}
        assert move_queries(conn, [QueryMove(other, "job_1", "waiting", {"error": None})], 4.0) == {other}
        again = one(conn, Query, other)
        assert (again.error, again.started_at, again.ended_at) == (None, None, None)


def test_a_decision_on_what_is_no_longer_so_moves_nothing(database: Database):
    with database.write() as conn:
        (query,) = add_job(conn, queries=1)
        stale = QueryMove(query, "job_1", "failed", seen="running")
        assert move_queries(conn, [stale], 1.0) == set()
        move_queries(conn, [QueryMove(query, "job_1", "running")], 1.0)
        assert move_queries(conn, [stale], 2.0) == {query}
        assert move_queries(conn, [QueryMove(10**9, "job_1", "running")], 2.0) == set()
        assert move_queries(conn, [], 2.0) == set()


def test_bugs_are_loud(database: Database):
    with database.write() as conn:
        (query,) = add_job(conn, queries=1)
        add_job(conn, "job_2")
        with pytest.raises(InvariantBroken, match="waiting and cannot become degraded"):
            move_queries(conn, [QueryMove(query, "job_1", "degraded")], 1.0)
        with pytest.raises(InvariantBroken, match='Did you mean "running"'):
            move_queries(conn, [QueryMove(query, "job_1", "runing")], 1.0)
        with pytest.raises(InvariantBroken, match="belongs to job job_1"):
            move_queries(conn, [QueryMove(query, "job_2", "running")], 1.0)
        with pytest.raises(InvariantBroken):
            move_job(conn, "job_1", "finished", 1.0, "typing error")


def test_of_many_who_end_a_query_at_once_one_does(database: Database):
    with database.write() as conn:
        ids = add_job(conn, queries=10)
        move_queries(conn, [QueryMove(query, "job_1", "running") for query in ids], 0.0)

    def end(n: int) -> int:
        mine = ids if n % 2 else ids[::-1]
        with database.write() as conn:
            return len(move_queries(conn, [QueryMove(q, "job_1", "done", {"answer": f"{n}{q}"}) for q in mine], 1.0))

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(end, range(12))) == 10
    with database.read() as conn:
        assert counted(conn) == recounted(conn)
        assert counted(conn)["done"] == 10


def test_a_job_goes_its_way_with_reasons_and_times(database: Database):
    with database.write() as conn:
        add_job(conn, status="validating")
        assert not move_job(conn, "job_1", "finalizing", 1.0, "too early")
        assert move_job(conn, "job_1", "running", 2.0, "100 lines are good", ingested_lines=100)
        assert move_job(conn, "job_1", "cancelling", 3.0, "asked by key_1")
        assert not move_job(conn, "job_1", "cancelling", 4.0, "asked again")
        assert move_job(conn, "job_1", "finalizing", 5.0, "cancelled")
        assert move_job(conn, "job_1", "cancelled", 6.0, "cancelled by key_1")
        job = one(conn, Job, "job_1")
        assert (job.status, job.status_reason, job.ingested_lines) == ("cancelled", "cancelled by key_1", 100)
        assert (job.started_at, job.cancelling_at, job.finalizing_at, job.ended_at) == (2.0, 3.0, 5.0, 6.0)
        assert move_job(conn, "job_1", "running", 7.0, "retry")
        job = one(conn, Job, "job_1")
        assert (job.cancelling_at, job.finalizing_at, job.ended_at) == (None, None, None)
        assert not move_job(conn, "job_9", "running", 1.0, "there is none")


def test_calls_move_once(database: Database):
    with database.write() as conn:
        (query,) = add_job(conn, queries=1)
        first, second, third = add_calls(conn, "job_1", query, 3)
        assert move_calls(conn, [first, second], "leased", 1.0, lease_owner="w", lease_until=9.0) == {first, second}
        assert move_calls(conn, [first, third], "done", 2.0, outcome={"candidates": []}) == {first}
        assert move_calls(conn, [first, second], "queued", 3.0) == {second}
        assert move_calls(conn, [first, second, third], "cancelled", 4.0) == {second, third}
        done, back = one(conn, Call, first), one(conn, Call, second)
        assert (done.status, done.outcome, done.started_at, done.ended_at) == ("done", {"candidates": []}, 1.0, 2.0)
        assert (back.lease_owner, back.lease_until, back.ended_at) == (None, None, 4.0)


def test_slots_and_workers_move(database: Database):
    with database.write() as conn:
        both = {"project_id": "default", "name": "n", "created_at": 0.0, "updated_at": 0.0}
        source = {"source": {}, "mapping": {}, "policy": {}, "model": "m", "identity": []}
        conn.execute(insert(Dataset.__table__).values(id="d", **both, **source))
        rule = {"dataset_id": "d", "rule": {}, "options": {}, "owner": "local", "cursor_at": 0.0}
        conn.execute(insert(Schedule.__table__).values(id="s", **both, **rule))
        slot = {"schedule_id": "s", "due_at": 1.0, "origin": "schedule", "status": "pending", "created_at": 0.0}
        slot |= {"version": 1, "overlap": "skip", "priority": "batch", "begins_at": 1.0}
        slot_id = conn.execute(insert(Slot.__table__).values(**slot).returning(Slot.__table__.c.id)).scalar_one()
        assert move_slot(conn, slot_id, "fired", 1.0)
        assert not move_slot(conn, slot_id, "skipped", 1.0, "late")
        assert move_slot(conn, slot_id, "done", 2.0, "all answered", report={"new": 1})
        row = one(conn, Slot, slot_id)
        assert (row.status, row.reason, row.report, row.ended_at) == ("done", "all answered", {"new": 1}, 2.0)

        worker = {"id": "w", "model": "m", "engine": {}, "slots": 1, "state": "starting", "version": "1"}
        conn.execute(insert(Worker.__table__).values(**worker, started_at=0.0, beat_at=0.0))
        assert move_worker(conn, "w", "ready", 1.0)
        assert move_worker(conn, "w", "draining", 2.0)
        assert move_worker(conn, "w", "stopped", 3.0)
        assert not move_worker(conn, "w", "ready", 4.0)
        row = one(conn, Worker, "w")
        assert (row.state, row.beat_at, row.stopped_at) == ("stopped", 3.0, 3.0)
