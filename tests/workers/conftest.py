"""Rows, brokers and pipelines for the tests of workers: real databases, a real Redis, the scripted engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import redis
from celery import Celery
from sqlalchemy import Row, insert, select, update

from orchestrator.advance import Outgoing, advance
from reasoning.policy import Policy
from storage.database import Database
from storage.settings import Settings
from storage.tables import Call, Job, JobCounters, Project, Query
from workers.app import make_app
from workers.engine.protocol import Engine
from workers.engine.scripted import Script, ScriptedEngine
from workers.intake import Claiming
from workers.messages import ADVANCE_QUEUE, GENERATE
from workers.pipeline import Pipeline

POLICY = Policy(candidates=2, fan_out="together")
NO_IMAGES = Script(read_images=False)


@dataclass(slots=True)
class Rows:
    """Jobs in a database, made and read directly."""

    database: Database
    jobs: int = 0
    queries: dict[str, list[int]] = field(default_factory=dict)

    def job(self, questions: list[str], policy: Policy = POLICY, *, model: str = "scripted", **query: Any) -> str:
        """A running job whose queries run; nothing is planned yet."""
        self.jobs += 1
        job_id = f"job_{self.jobs}"
        now = time.time()
        with self.database.write() as conn:
            if conn.execute(select(Project.id)).first() is None:
                conn.execute(insert(Project).values(id="default", name="default", created_at=now))
            conn.execute(
                insert(Job).values(
                    id=job_id,
                    project_id="default",
                    status="running",
                    model=model,
                    policy=policy.to_mapping(),
                    policy_digest=policy.digest,
                    created_at=now,
                )
            )
            conn.execute(insert(JobCounters).values(job_id=job_id, total=len(questions), running=len(questions)))
            rows = [
                {
                    "job_id": job_id,
                    "line": line,
                    "custom_id": f"q{line}",
                    "status": "running",
                    "body": {"question": question, "images": []},
                    "created_at": now,
                    "started_at": now,
                    **query,
                }
                for line, question in enumerate(questions, 1)
            ]
            self.queries[job_id] = [
                conn.execute(insert(Query).values(row).returning(Query.id)).scalar_one() for row in rows
            ]
        return job_id

    def plan(self, job_id: str) -> list[Outgoing]:
        """Have the queries of a job planned: their next calls are inserted."""
        return advance(self.database, self.queries[job_id], time.time()).outgoing

    def planned(self, questions: list[str], policy: Policy = POLICY, **query: Any) -> list[int]:
        """A job with its first calls queued; their ids."""
        return [call_id for item in self.plan(self.job(questions, policy, **query)) for call_id in item.call_ids]

    def calls(self, *call_ids: int) -> list[Row[Any]]:
        """Call rows by id, all without ids."""
        statement = select(Call.__table__).order_by(Call.id)
        if call_ids:
            statement = statement.where(Call.id.in_(call_ids))
        with self.database.read() as conn:
            return list(conn.execute(statement).all())

    def call(self, call_id: int) -> Row[Any]:
        return self.calls(call_id)[0]

    def statuses(self) -> set[str]:
        return {row.status for row in self.calls()}

    def counters(self, job_id: str) -> Row[Any]:
        with self.database.read() as conn:
            return conn.execute(select(JobCounters.__table__).where(JobCounters.job_id == job_id)).one()

    def set_call(self, call_id: int, **columns: Any) -> None:
        with self.database.write() as conn:
            conn.execute(update(Call).where(Call.id == call_id).values(**columns))

    def set_query(self, query_id: int, **columns: Any) -> None:
        with self.database.write() as conn:
            conn.execute(update(Query).where(Query.id == query_id).values(**columns))

    def set_job(self, job_id: str, **columns: Any) -> None:
        with self.database.write() as conn:
            conn.execute(update(Job).where(Job.id == job_id).values(**columns))


@pytest.fixture
def rows(database: Database) -> Rows:
    """Rows on SQLite and Postgres in turn."""
    return Rows(database)


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """The Celery app on an empty broker."""
    made = make_app(Settings(broker_url=redis_url))
    yield made
    made.publisher.close()


@pytest.fixture
def broker(redis_url: str) -> Iterator[redis.Redis]:
    """A plain client of the broker."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


def advances(broker: redis.Redis) -> int:
    """How many `advance` messages wait."""
    return int(broker.llen(ADVANCE_QUEUE))


@dataclass(slots=True)
class Pipelines:
    """Makes pipelines that are closed with the test."""

    database: Database
    app: Celery
    stack: ExitStack

    def make(self, engine: Engine | Script = NO_IMAGES, owner: str = "w1", **claiming: Any) -> Pipeline:
        """A pipeline over the scripted engine, or over `engine`."""
        settings = Claiming(owner=owner, lease_s=30.0, call_timeout_s=600.0)
        pipeline = Pipeline(
            database=self.database,
            engine=ScriptedEngine(engine) if isinstance(engine, Script) else engine,
            load_image=_no_image,
            publisher=self.app.publisher,
            model="scripted",
            claiming=replace(settings, **claiming),
        )
        self.stack.callback(_finish, pipeline)
        return pipeline


def _no_image(content_hash: str) -> bytes:
    raise KeyError(content_hash)


def _finish(pipeline: Pipeline) -> None:
    import threading

    hurry = threading.Event()
    hurry.set()
    pipeline.finish(0.0, hurry)
    pipeline.close()


@pytest.fixture
def pipelines(database: Database, app: Celery) -> Iterator[Pipelines]:
    """A maker of pipelines."""
    with ExitStack() as stack:
        yield Pipelines(database, app, stack)


def run(pipeline: Pipeline, call_ids: list[int]) -> None:
    """One message through a pipeline."""
    pipeline.run(GENERATE, call_ids, 6)
