"""Runs jobs in one process with the real planner, pipeline and stores; the broker is a list that may lose things."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import orjson
from sqlalchemy import insert, select

from orchestrator.advance import Outgoing, advance
from orchestrator.dispatch import dispatch
from orchestrator.finalize import finalize
from orchestrator.intake.rows import NewQuery, insert_queries
from orchestrator.reconcile import reconcile
from reasoning.policy import Policy
from storage import jobs, transitions
from storage.database import Database
from storage.objects import ObjectStore
from storage.settings import Settings
from storage.tables import Call, Job, JobCounters, Query
from workers.engine.scripted import Script, ScriptedEngine
from workers.intake import Claiming
from workers.messages import ADVANCE, calls_queue
from workers.pipeline import Pipeline
from workers.publish import Wakeup, calls_wakeup

SETTINGS = Settings(resend_s=5.0, window_min=16)

IDS = count(1)
"""Numbers of files, unique over all stacks of a test run."""


@dataclass
class Wire:
    """A broker that keeps messages in memory and loses each with probability `loss`."""

    loss: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    messages: deque[Wakeup] = field(default_factory=deque)
    sent: int = 0
    most: int = 0

    def send(self, wakeups: Iterable[Wakeup]) -> None:
        for wakeup in wakeups:
            self.sent += 1
            if self.rng.random() >= self.loss:
                self.messages.append(wakeup)
        self.most = max(self.most, len(self.messages))

    def depth(self, model: str) -> int:
        return sum(wakeup.queue == calls_queue(model) for wakeup in self.messages)


@dataclass
class Stack:
    """One orchestrator and one worker over a settable clock."""

    db: Database
    objects: ObjectStore
    wire: Wire = field(default_factory=Wire)
    script: Script = field(default_factory=lambda: Script(read_images=False))
    settings: Settings = SETTINGS
    now: float = 1_000_000.0

    def clock(self) -> float:
        return self.now

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(IDS)}"

    def send(self, outgoing: Iterable[Outgoing]) -> None:
        self.wire.send(calls_wakeup(item.kind, item.model, item.call_ids, item.priority) for item in outgoing)

    @contextmanager
    def worker(self, owner: str = "worker-1") -> Iterator[Pipeline]:
        claiming = Claiming(owner=owner, lease_s=30.0, call_timeout_s=60.0, clock=self.clock)
        pipeline = Pipeline(
            database=self.db,
            engine=ScriptedEngine(self.script),
            load_image=lambda _sha: b"",
            publisher=self.wire,  # type: ignore[arg-type]
            model="scripted",
            claiming=claiming,
        )
        try:
            yield pipeline
        finally:
            pipeline.finish(5.0, threading.Event())
            pipeline.close()

    def submit(self, job_id: str, size: int, *, policy: dict[str, Any] | None = None, **columns: Any) -> str:
        """A running job of `count` questions without images."""
        frozen = Policy.from_mapping(policy or {})
        rows = [NewQuery(line, f"q{line}", _body(line)) for line in range(1, size + 1)]
        values = {
            "id": job_id,
            "project_id": "default",
            "status": "running",
            "model": "scripted",
            "policy": frozen.to_mapping(),
            "policy_digest": frozen.digest,
            "created_at": self.now,
            **columns,
        }
        with self.db.write() as conn:
            conn.execute(insert(Job.__table__).values(values))
            conn.execute(insert(JobCounters.__table__).values(job_id=job_id))
            insert_queries(conn, job_id, rows, self.now)
            transitions.add_counts(conn, job_id, {"total": size, "waiting": size})
        return job_id

    def step(self, pipeline: Pipeline) -> None:
        """Deliver what is on the wire, oldest first; with an empty wire let time pass and reconcile."""
        self.send(dispatch(self.db, self.settings, self.now).outgoing)
        if not self.wire.messages:
            self.now += 6.0
            self.send(reconcile(self.db, self.settings, self.wire.depth, self.now).outgoing)
        while self.wire.messages:
            self.deliver(pipeline, self.wire.messages.popleft())

    def deliver(self, pipeline: Pipeline, message: Wakeup) -> None:
        """One message to whom it is for."""
        if message.task == ADVANCE:
            self.send(advance(self.db, message.arguments["query_ids"], self.now).outgoing)
        else:
            pipeline.run(message.task, message.arguments["call_ids"], message.priority)

    def run(self, *job_ids: str, rounds: int = 200) -> None:
        """Until the jobs ended."""
        with self.worker() as pipeline:
            for _ in range(rounds):
                self.step(pipeline)
                for job_id in job_ids:
                    finalize(self.db, self.objects, job_id, self.clock, self.new_id)
                if all(self.job(job_id).ended_at is not None for job_id in job_ids):
                    return
        raise AssertionError(f"still open after {rounds} rounds: {[self.job(job_id).status for job_id in job_ids]}")

    def job(self, job_id: str) -> Any:
        with self.db.read() as conn:
            return jobs.get(conn, job_id)

    def queries(self, job_id: str) -> list[Any]:
        rows = Query.__table__
        with self.db.read() as conn:
            return list(conn.execute(select(rows).where(rows.c.job_id == job_id).order_by(rows.c.line)))

    def calls(self, job_id: str) -> list[Any]:
        rows = Call.__table__
        with self.db.read() as conn:
            return list(conn.execute(select(rows).where(rows.c.job_id == job_id).order_by(rows.c.id)))

    def answers(self, job_id: str) -> list[tuple[str, str, str | None]]:
        return [(row.custom_id, row.status, row.answer) for row in self.queries(job_id)]


def _body(line: int) -> str:
    return orjson.dumps({"question": f"How many balls are left in picture {line}?", "images": []}).decode()
