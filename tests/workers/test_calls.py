"""Leases and outcomes of calls on both databases: claims, fencing, waste, expiry."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from reasoning.records import Call as CallRecord
from reasoning.records import CallStatus
from storage import calls, planning, queries
from storage.calls import Claimed, Ended
from storage.database import Database
from storage.transitions import CALL_MOVES
from storage.workload import Known, load_work
from tests.workers.conftest import Rows

NOW = 1_000.0
LEASE_S = 30.0
LATER = NOW + LEASE_S + 1


def claim(rows: Rows, ids: list[int], owner: str = "w1", now: float = NOW, *, alone: bool = False) -> list[Claimed]:
    with rows.database.write() as conn:
        return calls.claim(conn, ids, owner, now, LEASE_S, alone=alone)


def finish(rows: Rows, owner: str, *ended: Ended) -> calls.Written:
    with rows.database.write() as conn:
        return calls.finish(conn, owner, ended, NOW + 1)


def done(call: Claimed, text: str = "x", tokens: int = 7) -> Ended:
    outcome = {"candidates": [{"index": 0, "text": text}]}
    return Ended(call.id, call.query_id, call.job_id, CallStatus.DONE, outcome, None, {"generated_tokens": tokens})


@pytest.fixture
def ids(rows: Rows) -> list[int]:
    return rows.planned(["one?", "two?", "three?"])


def test_a_claim_leases_each_call_once_and_says_what_it_must_do(rows: Rows, ids: list[int]) -> None:
    taken = claim(rows, [*ids, 10_000])
    assert [call.id for call in taken] == sorted(ids)
    assert {(call.attempts, call.deaths, call.spec.key) for call in taken} == {(1, 0, "summary/r0/generate/0-1")}
    assert [(r.status, r.lease_owner, r.lease_until, r.started_at) for r in rows.calls(*ids)] == [
        ("leased", "w1", NOW + LEASE_S, NOW)
    ] * 3
    assert claim(rows, ids, "w2") == []
    assert claim(rows, ids, "w1") == []


def test_a_lease_that_ran_out_is_taken_over_and_counts_a_death(rows: Rows, ids: list[int]) -> None:
    claim(rows, ids)
    (taken,) = claim(rows, ids[:1], "w2", LATER)
    assert (taken.attempts, taken.deaths) == (2, 1)


@pytest.mark.parametrize(
    "hinder",
    [
        lambda rows, call: rows.set_query(call.query_id, status="cancelled"),
        lambda rows, call: rows.set_job(call.job_id, status="cancelling", killed_at=1.0),
    ],
    ids=["query ended", "job given up"],
)
def test_nobody_works_for_a_query_that_nobody_waits_for(rows: Rows, ids: list[int], hinder: object) -> None:
    hinder(rows, rows.call(ids[0]))  # type: ignore[operator]
    assert ids[0] not in {call.id for call in claim(rows, ids)}
    assert rows.call(ids[0]).status == "queued"


def test_the_first_outcome_is_written_and_a_second_is_waste(rows: Rows, ids: list[int]) -> None:
    first, *_ = claim(rows, ids)
    assert finish(rows, "w1", done(first, "kept")).written == {first.id}
    again = finish(rows, "w1", done(first, "late", tokens=11))
    assert (again.written, again.wasted) == (frozenset(), {first.id})
    row = rows.call(first.id)
    assert (row.status, row.outcome["candidates"][0]["text"], row.worker) == ("done", "kept", "w1")
    assert (row.lease_owner, row.lease_until, row.ended_at) == (None, None, NOW + 1)
    counters = rows.counters(first.job_id)
    assert (counters.wasted_calls, counters.rerun_tokens) == (1, 11)


def test_only_the_owner_of_the_lease_writes(rows: Rows, ids: list[int]) -> None:
    slow, *_ = claim(rows, ids)
    (fast,) = claim(rows, [slow.id], "w2", LATER)
    assert finish(rows, "w1", done(slow, "zombie")).wasted == {slow.id}
    assert rows.call(slow.id).lease_owner == "w2"
    assert finish(rows, "w2", done(fast, "right")).written == {slow.id}
    assert rows.call(slow.id).outcome["candidates"][0]["text"] == "right"


def test_work_for_a_cancelled_call_costs_tokens_but_is_no_duplicate(rows: Rows, ids: list[int]) -> None:
    call, *_ = claim(rows, ids)
    rows.set_call(call.id, status="cancelled", lease_owner=None, lease_until=None)
    written = finish(rows, "w1", done(call))
    assert (written.written, written.wasted) == (frozenset(), frozenset())
    counters = rows.counters(call.job_id)
    assert (counters.wasted_calls, counters.rerun_tokens) == (0, 7)
    assert rows.call(call.id).status == "cancelled"


def test_failed_calls_keep_their_error_and_many_kinds_go_in_one_statement(rows: Rows, ids: list[int]) -> None:
    good, bad, other = claim(rows, ids)
    message = "\\u0000 \0 \ud83d \N{SNOWMAN} '\""
    error = {"code": "context_overflow", "message": message, "retryable": False, "attempts": 1}
    failed = Ended(bad.id, bad.query_id, bad.job_id, CallStatus.FAILED, error=error)
    assert finish(rows, "w1", done(good), failed).written == {good.id, bad.id}
    row = rows.call(bad.id)
    assert (row.status, row.error, row.outcome, row.usage) == (
        "failed",
        {**error, "message": "\\u0000 \N{REPLACEMENT CHARACTER} ? \N{SNOWMAN} '\""},
        None,
        None,
    )
    assert rows.call(other.id).status == "leased"


def test_renewing_tells_which_leases_are_lost(rows: Rows, ids: list[int]) -> None:
    claim(rows, ids)
    rows.set_call(ids[0], lease_owner="w2")
    with rows.database.write() as conn:
        assert calls.renew(conn, ids, "w1", LATER + LEASE_S) == set(ids[1:])
        assert calls.held(conn, ids, "w1") == set(ids[1:])
    assert claim(rows, ids[1:], "w3", LATER) == []


def test_release_gives_back_without_a_death_and_only_what_is_ours(rows: Rows, ids: list[int]) -> None:
    claim(rows, ids)
    with rows.database.write() as conn:
        assert calls.release(conn, ids, "w2", NOW) == []
        loose = calls.release(conn, ids[:2], "w1", NOW + 5)
    assert {(item.id, item.kind, item.model) for item in loose} == {(i, "generate", "scripted") for i in ids[:2]}
    row = rows.call(ids[0])
    assert (row.status, row.deaths, row.lease_owner, row.sent_at, row.outcome) == ("queued", 0, None, NOW + 5, None)
    assert [call.attempts for call in claim(rows, ids)] == [2, 2]


def test_expiry_queues_again_then_runs_alone_then_fails(rows: Rows, ids: list[int]) -> None:
    poison, *_ = ids
    for deaths in (1, 2):
        claim(rows, [poison], alone=deaths == 2)
        with rows.database.write() as conn:
            assert calls.expire_leases(conn, NOW + 1).queued == []
            expired = calls.expire_leases(conn, LATER)
        assert [call.id for call in expired.queued] == [poison]
        assert rows.call(poison).deaths == deaths
    assert claim(rows, [poison]) == []
    with rows.database.read() as conn:
        assert calls.need_alone(conn, [poison, 10_000], NOW) == [poison]
    assert [call.deaths for call in claim(rows, [poison], alone=True)] == [2]
    with rows.database.write() as conn:
        expired = calls.expire_leases(conn, LATER)
    assert (expired.queued, [call.id for call in expired.failed]) == ([], [poison])
    row = rows.call(poison)
    assert (row.status, row.deaths, row.error["code"], row.error["attempts"]) == ("failed", 3, "poison_call", 3)
    assert row.lease_owner is None


def test_a_third_death_is_never_claimed_away(rows: Rows, ids: list[int]) -> None:
    """A call whose third death is not yet counted must not be started a fourth time."""
    claim(rows, ids[:1])
    rows.set_call(ids[0], deaths=2)
    assert claim(rows, ids[:1], "w2", LATER, alone=True) == []


def test_every_move_made_here_is_a_legal_one() -> None:
    made = {
        ("queued", "leased"),
        ("leased", "queued"),
        ("leased", "done"),
        ("leased", "failed"),
    }
    assert all(to in CALL_MOVES[status] for status, to in made)


def test_empty_lists_do_nothing(rows: Rows, ids: list[int]) -> None:
    assert claim(rows, []) == []
    assert finish(rows, "w1") == calls.Written(frozenset(), frozenset())
    with rows.database.write() as conn:
        assert load_work(conn, [], Known()) == []


def test_work_comes_with_query_policy_and_the_outcomes_referred_to(rows: Rows) -> None:
    job = rows.job(["one?", "two?"], body={"question": "Why?", "images": [], "policy": {"temperature": 0.1}})
    first = claim(rows, [call_id for item in rows.plan(job) for call_id in item.call_ids])
    for call in first:
        text = f"<SUMMARY>plan {call.id} {{}}</SUMMARY>"
        candidates = [
            {"index": i, "text": text.format(i), "tokens": 3, "finish": "stop", "token_ids": [5, i], "seed": i}
            for i in range(2)
        ]
        finish(rows, "w1", Ended(call.id, call.query_id, call.job_id, CallStatus.DONE, {"candidates": candidates}))
    compare = claim(rows, [call_id for item in rows.plan(job) for call_id in item.call_ids])
    known = Known()
    for _ in range(2):  # the second time from memory
        with rows.database.read() as conn:
            work = load_work(conn, compare, known)
        assert [item.call.spec.kind.value for item in work] == ["compare", "compare"]
        assert {item.policy.temperature for item in work} == {0.1}
        assert {item.query.question for item in work} == {"Why?"}
        for item in work:
            (record,) = item.siblings.values()
            assert [candidate.token_ids for candidate in record.candidates] == [(5, 0), (5, 1)]
            assert record.candidates[0].text.startswith("<SUMMARY>plan")
        assert len({item.siblings["summary/r0/generate/0-1"].candidates[0].text for item in work}) == 2


def test_postgres_looks_rows_up_by_key(rows: Rows, ids: list[int], database: Database) -> None:
    """Without statistics the planner once read every open call for each claim: 400 ms instead of 0.2."""
    if database.dialect != "postgresql":
        pytest.skip("a matter of Postgres' planner")
    seen: list[tuple[str, Any]] = []

    class Noting(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **how: Any) -> Any:
            if b"calls" in (query if isinstance(query, bytes) else query.encode()):
                seen.append((query, params))
            return super().execute(query, params, **how)

    with database.write() as conn:
        driver: Any = conn.connection.driver_connection
        driver.cursor_factory = Noting
        taken = calls.claim(conn, ids, "w1", NOW, LEASE_S)
        load_work(conn, taken, Known())
        calls.finish(conn, "w1", [done(call) for call in taken], NOW)
        calls.renew(conn, ids, "w1", NOW)
        driver.cursor_factory = psycopg.Cursor
        plans = ["\n".join(row[0] for row in driver.execute(f"EXPLAIN {sql}", values)) for sql, values in seen]
    assert len(plans) == 3
    for plan in plans:
        assert "pk_calls" in plan
        assert not re.search("Seq Scan|ix_calls_open|ix_queries_state", plan), plan


def test_a_planner_reads_an_ended_call_once_in_each_life_of_its_query(rows: Rows) -> None:
    job = rows.job(["one?"])
    (query_id,) = rows.queries[job]
    remembered = planning.Remembered()

    def read() -> list[CallRecord]:
        with rows.database.write() as conn:
            running, found = planning.lock_running(conn, [query_id], remembered)
            assert [row.id for row in running] == [query_id]
            return found[query_id]

    def write(text: str, at: float) -> None:
        ids = [call_id for item in rows.plan(job) for call_id in item.call_ids]
        (call,) = claim(rows, ids)
        item = {"index": 0, "text": text, "tokens": 1, "finish": "stop", "token_ids": [5], "seed": 1}
        with rows.database.write() as conn:
            calls.finish(conn, "w1", [Ended(call.id, query_id, job, CallStatus.DONE, {"candidates": [item]})], at)

    write("first", NOW)
    (one,), (two,) = read(), read()
    assert one == replace(two, candidates=(replace(two.candidates[0], token_ids=(5,)),))
    assert read()[0] is two
    with rows.database.write() as conn:  # as of a job whose calls were folded away and which is then retried
        planning.delete_calls(conn, [query_id])
        queries.count_retry(conn, [query_id])
    assert read() == []
    write("second", NOW + 1)  # on SQLite under the same id
    assert [call.candidates[0].text for call in read()] == ["second"]
    remembered.forget([query_id])
    assert remembered.ids([query_id]) == []
