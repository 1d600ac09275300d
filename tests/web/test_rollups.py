from __future__ import annotations

from orchestrator.rollup import RollupWriter
from storage import questions, rollups
from storage.database import Database
from storage.objects import open_objects
from storage.search import Terms
from storage.settings import Settings
from tests.web.filled import Filler

NOW = 1_700_000_000.0


def test_roll_ups_say_what_the_rows_say(database: Database, settings: Settings):
    filler = Filler(database, open_objects(settings), NOW - 7000)
    job = filler.job(filler.scenes(range(12)), policy={"candidates": 2})
    filler.run(job, queries_=5)
    filler.now = NOW - 300
    filler.run(job)
    writer = RollupWriter(database)
    writer.step(NOW)
    with database.read() as conn:
        rows = questions.page(conn, job, Terms(), limit=50)
        series = rollups.read(conn, NOW)
    total = series.total("day")
    assert total.done == len(rows) == 12
    assert series.total("hour").done == 7
    assert sum((each.done for each in series.models.values()), 0) == 7
    assert series.total("week").done == 12
    assert total.tokens == sum(row.usage["generated_tokens"] for row in rows)
    assert total.calls == sum(row.usage["candidates"] + row.usage["verdicts"] for row in rows)
    assert sum(total.waiting_ms) == sum(total.running_ms) == 12
    waits = sorted(row.started_at - row.created_at for row in rows)
    assert total.waiting_s(0.95) is not None
    assert waits[-1] / 2 <= (total.waiting_s(1.0) or 0) <= waits[-1] * 2


def test_writing_again_changes_nothing_and_costs_nothing_at_once(database: Database, settings: Settings):
    filler = Filler(database, open_objects(settings), NOW - 120)
    job = filler.job(filler.scenes(range(3)), policy={"candidates": 2})
    filler.run(job)
    for writer in (RollupWriter(database), RollupWriter(database)):
        for step in range(20):
            writer.step(NOW + step)
    with database.read() as conn:
        assert rollups.read(conn, NOW).total("day").done == 3


def test_a_writer_that_was_away_works_its_time_off(database: Database, settings: Settings):
    filler = Filler(database, open_objects(settings), NOW - 5 * 86400)
    job = filler.job(filler.scenes(range(2)), policy={"candidates": 2})
    filler.run(job, queries_=1)
    filler.now = NOW - 60
    filler.run(job)
    writer = RollupWriter(database)
    for _ in range(40):
        writer.step(NOW)
    with database.read() as conn:
        assert rollups.read(conn, NOW).total("week").done == 2
