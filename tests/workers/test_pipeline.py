"""A pipeline over the scripted engine: what becomes of calls, on both databases with a real broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
import redis

from reasoning.errors import Transient
from reasoning.policy import Policy
from tests.waiting import wait_until
from tests.workers.conftest import NO_IMAGES, Pipelines, Rows, advances, run
from workers import writer
from workers.engine.protocol import Generate, Request
from workers.engine.scripted import Script, ScriptedEngine
from workers.leases import LeaseKeeper, Watchdog
from workers.messages import calls_queue
from workers.pipeline import Pipeline

FOREVER_S = 1_000.0


def script(**faults: Any) -> Script:
    return Script(read_images=False, markers=True, **faults)


def held_up(release: threading.Event) -> Callable[[Request], float]:
    """Seconds of a request: long while its question says `#wait` and nobody has released it."""

    def seconds(request: Request) -> float:
        waits = any("#wait" in message.text for message in request.prompt.messages)
        return FOREVER_S if waits and not release.is_set() else 0.0

    return seconds


def a_hundredth_each(request: Request) -> float:
    """Query q7 takes seven hundredths of a second."""
    return 0.01 * int(request.call_id.partition("/")[0].removeprefix("q"))


def in_background(pipeline: Pipeline, call_ids: list[int]) -> threading.Thread:
    thread = threading.Thread(target=run, args=(pipeline, call_ids), daemon=True)
    thread.start()
    return thread


def queued_messages(broker: redis.Redis) -> int:
    return sum(int(broker.llen(key)) for key in broker.keys(calls_queue("scripted") + "*"))


def test_a_search_runs_to_its_answer(rows: Rows, pipelines: Pipelines, broker: redis.Redis) -> None:
    job = rows.job(["What is it?", "Which one?\nA. this", "Why?"])
    pipeline = pipelines.make()
    while outgoing := rows.plan(job):
        for item in outgoing:
            run(pipeline, list(item.call_ids))
    assert rows.counters(job).done == 3
    assert rows.statuses() == {"done"}
    assert {row.worker for row in rows.calls()} == {"w1"}
    assert {row.attempts for row in rows.calls()} == {1}
    assert all(row.usage["prompt_tokens"] > 0 for row in rows.calls())
    assert advances(broker) >= 12
    assert pipeline.writer.counts["wasted"] == 0


def test_a_second_delivery_changes_nothing(rows: Rows, pipelines: Pipelines) -> None:
    ids = rows.planned(["one?", "two?"])
    pipeline = pipelines.make()
    run(pipeline, ids)
    before = rows.calls()
    run(pipeline, [*ids, *ids, 10_000])
    assert rows.calls() == before


def test_two_copies_of_a_message_at_once_run_the_work_once(rows: Rows, pipelines: Pipelines) -> None:
    ids = rows.planned(["one? #wait"])
    release = threading.Event()
    engine = ScriptedEngine(NO_IMAGES, seconds=held_up(release))
    first, second = pipelines.make(engine), pipelines.make(owner="w2")
    waiting = in_background(first, ids)
    wait_until(lambda: rows.call(ids[0]).status == "leased")
    run(first, ids)
    run(second, ids)
    assert (rows.call(ids[0]).lease_owner, second.engine.counters().values) == ("w1", {})
    engine.close()
    waiting.join(10)
    assert not waiting.is_alive()


def test_work_under_a_lost_lease_is_waste(rows: Rows, pipelines: Pipelines) -> None:
    """The owner stalls past its lease, another worker does the call, and the first one's result is not written."""
    ids = rows.planned(["one?"])
    paused, go_on = threading.Event(), threading.Event()
    engine = StallingEngine(paused, go_on)
    zombie, other = pipelines.make(engine, lease_s=0.001), pipelines.make(owner="w2")
    waiting = in_background(zombie, ids)
    assert paused.wait(10)
    wait_until(lambda: run(other, ids) or rows.call(ids[0]).status == "done")
    before = rows.call(ids[0])
    go_on.set()
    waiting.join(10)
    assert rows.call(ids[0]) == before
    assert before.worker == "w2"
    counters = rows.counters("job_1")
    assert counters.wasted_calls == 1
    assert counters.rerun_tokens == before.usage["generated_tokens"]
    assert zombie.writer.counts["wasted"] == 1


class StallingEngine(ScriptedEngine):
    """Stops the caller before it answers, as a machine that swaps or a suspended process would."""

    def __init__(self, paused: threading.Event, go_on: threading.Event) -> None:
        super().__init__(NO_IMAGES)
        self._paused = paused
        self._go_on = go_on

    def generate(self, request: Generate) -> Any:
        self._paused.set()
        self._go_on.wait(20)
        return super().generate(request)


class DeafEngine(ScriptedEngine):
    """Takes a request and never looks at its deadline."""

    def __init__(self) -> None:
        super().__init__(NO_IMAGES)
        self.answer: Future[Any] = Future()

    def generate(self, request: Generate) -> Any:
        return self.answer


def test_a_slow_call_holds_nobody_back(rows: Rows, pipelines: Pipelines) -> None:
    ids = rows.planned(["slow? #wait", "quick?", "quick too?"])
    engine = ScriptedEngine(NO_IMAGES, seconds=held_up(threading.Event()))
    pipeline = pipelines.make(engine)
    waiting = in_background(pipeline, ids)
    wait_until(lambda: [row.status for row in rows.calls(*ids)] == ["leased", "done", "done"])
    engine.close()
    waiting.join(10)


def test_calls_of_several_messages_are_in_the_engine_at_once(rows: Rows, pipelines: Pipelines) -> None:
    ids = rows.planned([f"number {number}? #wait" for number in range(12)])
    engine = ScriptedEngine(NO_IMAGES, seconds=held_up(threading.Event()))
    pipeline = pipelines.make(engine)
    threads = [in_background(pipeline, ids[start : start + 4]) for start in (0, 4, 8)]
    wait_until(lambda: sum(held.asked is not None for held in pipeline.hand.all()) == 12)
    engine.close()
    for thread in threads:
        thread.join(10)


def test_an_error_of_the_model_is_kept_on_the_call(rows: Rows, pipelines: Pipelines, broker: redis.Redis) -> None:
    ids = rows.planned(["good?", "bad? " + "word " * 400])
    run(pipelines.make(Script(read_images=False, context=300)), ids)
    good, bad = rows.calls(*ids)
    assert (good.status, bad.status) == ("done", "failed")
    assert (bad.error["code"], bad.error["retryable"], bad.error["attempts"]) == ("context_overflow", False, 1)
    assert advances(broker) >= 1


def test_a_retryable_error_is_tried_again_a_few_times(rows: Rows, pipelines: Pipelines, broker: redis.Redis) -> None:
    ids = rows.planned(["one? #crash"])
    pipeline = pipelines.make(script())
    for attempt in (1, 2):
        run(pipeline, ids)
        row = rows.call(ids[0])
        assert (row.status, row.attempts, row.deaths, row.error) == ("queued", attempt, 0, None)
    run(pipeline, ids)
    row = rows.call(ids[0])
    assert (row.status, row.error["code"], row.error["attempts"]) == ("failed", "crash", 3)
    assert pipeline.writer.counts["retried"] == 2
    wait_until(lambda: queued_messages(broker) == 2)


def test_what_passes_by_itself_is_tried_without_end(rows: Rows, pipelines: Pipelines) -> None:
    ids = rows.planned(["one? #transient"])
    pipeline = pipelines.make(script())
    for _ in range(5):
        run(pipeline, ids)
    assert (rows.call(ids[0]).status, rows.call(ids[0]).attempts) == ("queued", 5)
    run(pipelines.make(owner="w2"), ids)
    assert rows.call(ids[0]).status == "done"


def test_a_retried_call_draws_the_same_candidates(rows: Rows, pipelines: Pipelines) -> None:
    first, second = rows.planned(["one? #crash"]), rows.planned(["one? #crash"])
    pipeline = pipelines.make(script(times=2))
    for _ in range(3):
        run(pipeline, first)
    run(pipelines.make(script(times=1), owner="w2"), second)
    run(pipelines.make(script(times=1), owner="w2"), second)
    wait_until(lambda: run(pipelines.make(NO_IMAGES, owner="w3"), second) or rows.call(second[0]).status == "done")
    assert rows.call(first[0]).outcome == rows.call(second[0]).outcome


def test_a_call_past_its_time_fails_with_the_reason(rows: Rows, pipelines: Pipelines) -> None:
    limit = rows.planned(["slow? #wait"])
    own = rows.planned(["slow? #wait"], deadline_at=time.time() + 0.1)
    engine = ScriptedEngine(NO_IMAGES, seconds=held_up(threading.Event()))
    run(pipelines.make(engine, call_timeout_s=0.1), limit)
    assert rows.call(limit[0]).error["code"] == "call_timeout"
    run(pipelines.make(ScriptedEngine(NO_IMAGES, seconds=held_up(threading.Event())), owner="w2"), own)
    assert rows.call(own[0]).error["code"] == "deadline"


def test_a_cancelled_call_stops_in_the_engine(rows: Rows, pipelines: Pipelines) -> None:
    ids = rows.planned(["slow? #wait"])
    engine = ScriptedEngine(NO_IMAGES, seconds=held_up(threading.Event()))
    pipeline = pipelines.make(engine)
    waiting = in_background(pipeline, ids)
    wait_until(lambda: len(pipeline.hand) == 1)
    keeper = LeaseKeeper(pipelines.database, pipeline.hand, pipeline.claiming)
    keeper.look_s = 0.0
    keeper.look()
    assert not pipeline.hand.all()[0].lost
    rows.set_call(ids[0], status="cancelled", lease_owner=None, lease_until=None)
    keeper.look()
    waiting.join(10)
    assert not waiting.is_alive()
    assert (rows.call(ids[0]).status, rows.counters("job_1").wasted_calls) == ("cancelled", 0)


def test_the_lease_of_a_long_call_is_renewed(rows: Rows, pipelines: Pipelines) -> None:
    ids = rows.planned(["slow? #wait"])
    engine = ScriptedEngine(NO_IMAGES, seconds=held_up(threading.Event()))
    pipeline = pipelines.make(engine, lease_s=0.3)
    waiting = in_background(pipeline, ids)
    wait_until(lambda: len(pipeline.hand) == 1)
    taken = rows.call(ids[0]).lease_until
    keeper = LeaseKeeper(pipelines.database, pipeline.hand, pipeline.claiming)
    other = pipelines.make(owner="w2")

    def outlived() -> bool:
        keeper.look()
        run(other, ids)
        return bool(rows.call(ids[0]).lease_until > taken + 1.0)

    wait_until(outlived)
    row = rows.call(ids[0])
    assert (row.status, row.lease_owner, row.attempts, row.deaths) == ("leased", "w1", 1, 0)
    engine.close()
    waiting.join(10)


def test_a_call_after_two_deaths_runs_with_no_other_beside_it(rows: Rows, pipelines: Pipelines) -> None:
    ids = rows.planned(["one? #wait", "two?", "suspect?"])
    rows.set_call(ids[2], deaths=2)
    release = threading.Event()
    beside: list[int] = []

    class Watching(ScriptedEngine):
        def generate(self, request: Generate) -> Any:
            if "suspect" in request.prompt.messages[-1].text:
                beside.append(len(pipeline.hand))
            return super().generate(request)

    engine = Watching(NO_IMAGES, seconds=lambda request: 0.2 if "#wait" in request.prompt.messages[-1].text else 0.0)
    pipeline = pipelines.make(engine)
    run(pipeline, ids)
    release.set()
    assert [row.status for row in rows.calls(*ids)] == ["done"] * 3
    assert beside == [1]


def test_what_is_in_hand_at_the_end_is_given_back(rows: Rows, pipelines: Pipelines, broker: redis.Redis) -> None:
    ids = rows.planned([f"slow? #wait {number}" for number in range(3)])
    engine = ScriptedEngine(NO_IMAGES, seconds=held_up(threading.Event()))
    pipeline = pipelines.make(engine)
    waiting = in_background(pipeline, ids)
    wait_until(lambda: len(pipeline.hand) == 3)
    pipeline.finish(0.0, threading.Event())
    waiting.join(10)
    assert not waiting.is_alive()
    late = in_background(pipeline, ids)
    late.join(10)
    pipeline.close()
    assert {(row.status, row.deaths, row.lease_owner) for row in rows.calls(*ids)} == {("queued", 0, None)}
    assert queued_messages(broker) == 4
    run(pipelines.make(owner="w2"), ids)
    assert rows.statuses() == {"done"}


def test_what_can_end_within_the_grace_is_written(rows: Rows, pipelines: Pipelines) -> None:
    ids = rows.planned(["one?", "two?"])
    pipeline = pipelines.make(Script(read_images=False, seconds=0.3))
    waiting = in_background(pipeline, ids)
    wait_until(lambda: len(pipeline.hand) == 2)
    pipeline.finish(20.0, threading.Event())
    waiting.join(10)
    assert rows.statuses() == {"done"}


def test_an_engine_that_ignores_its_deadlines_ends_the_process(rows: Rows, pipelines: Pipelines) -> None:
    ids = rows.planned(["one?"])
    died = threading.Event()
    engine = DeafEngine()
    pipeline = pipelines.make(engine, call_timeout_s=0.01)
    waiting = in_background(pipeline, ids)
    watchdog = Watchdog(pipeline.hand, grace_s=0.01, die=died.set)
    wait_until(lambda: watchdog.look() or died.is_set())
    engine.answer.set_exception(Transient("over"))
    waiting.join(10)


def test_a_call_that_waits_for_a_slot_past_its_deadline_is_no_sign_of_a_hang(rows: Rows, pipelines: Pipelines) -> None:
    """The engine has not even been asked: it works on others, as long as these may take."""
    release, died = threading.Event(), threading.Event()
    ids = rows.planned(["slow? #wait", "next? #wait", "hurried? #wait"])
    rows.set_query(rows.call(ids[2]).query_id, deadline_at=time.time() + 0.05)
    engine = ScriptedEngine(script(slots=2), seconds=held_up(release))
    pipeline = pipelines.make(engine)
    waiting = in_background(pipeline, ids)
    wait_until(
        lambda: len(pipeline.hand) == 3 and any(item.deadline < time.monotonic() for item in pipeline.hand.all())
    )
    wait_until(lambda: all(item.asked for item in pipeline.hand.all()[:2]))
    Watchdog(pipeline.hand, grace_s=0.0, die=died.set).look()
    engine.close()
    waiting.join(10)
    assert not died.is_set()


def test_rows_that_cannot_be_read_do_not_stop_their_neighbours(rows: Rows, pipelines: Pipelines) -> None:
    ids = rows.planned(["one?", "two?", "three?"])
    rows.set_call(ids[1], request={"no": "such thing"})
    run(pipelines.make(), ids)
    assert [row.status for row in rows.calls(*ids)] == ["done", "queued", "done"]


def test_a_reference_to_nothing_fails_the_call_loudly(rows: Rows, pipelines: Pipelines) -> None:
    ids = rows.planned(["one?", "two?"], Policy(candidates=1))
    request = {**rows.call(ids[0]).request, "path": [["summary/r0/generate/7", 0]]}
    rows.set_call(ids[0], request=request)
    run(pipelines.make(), ids)
    assert [row.status for row in rows.calls(*ids)] == ["failed", "done"]
    assert rows.call(ids[0]).error["code"] == "internal_error"


def test_a_missing_image_fails_its_query_alone(rows: Rows, pipelines: Pipelines) -> None:
    body = {"question": "What?", "images": ["0" * 64]}
    bad = rows.planned(["?"], body=body)
    good = rows.planned(["What?"])
    run(pipelines.make(Script()), [*bad, *good])
    assert rows.call(bad[0]).error["code"] == "bad_image"
    assert rows.call(good[0]).status == "done"


def test_calls_that_end_close_together_are_written_together(
    rows: Rows, pipelines: Pipelines, broker: redis.Redis
) -> None:
    call_ids = rows.planned([f"{n}?" for n in range(12)])
    pipeline = pipelines.make(ScriptedEngine(NO_IMAGES, seconds=a_hundredth_each))
    run(pipeline, call_ids)
    assert rows.statuses() == {"done"}
    assert advances(broker) <= 4  # the first at once, the others by and by


def test_an_interactive_call_does_not_wait_for_others(
    rows: Rows, pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PACE_S", FOREVER_S)
    slow = rows.planned(["Slow #wait"])
    pipeline = pipelines.make(ScriptedEngine(NO_IMAGES, seconds=held_up(threading.Event())))
    waiting = in_background(pipeline, slow)
    wait_until(lambda: len(pipeline.hand) == 1)
    job = rows.job(["Quick?"])
    rows.set_job(job, priority="interactive")
    for _ in range(2):
        for item in rows.plan(job):
            quick = in_background(pipeline, list(item.call_ids))
            wait_until(lambda thread=quick: not thread.is_alive())
    pipeline.give_back_all()
    waiting.join()
