"""Stores filled the way real ones are: the planner plans, an engine answers, time passes on a clock of its own."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sqlalchemy import insert, select

from orchestrator.advance import advance
from orchestrator.dispatch import _deadline
from orchestrator.finalize import finalize
from reasoning.errors import ModelError, Transient
from reasoning.policy import Policy
from reasoning.records import CallError, CallKind, CallStatus, outcome_to_json
from storage import calls, jobs, queries, transitions
from storage.database import Database
from storage.objects import ObjectStore, keys
from storage.tables import Blob, Call, Job, JobCounters, Query, Worker
from storage.workload import Known, load_work
from tests.web.scenes import Scene, SceneEngine, scene
from workers.asks import Terms
from workers.engine.protocol import Engine, never
from workers.generate import ask_generate
from workers.judge import ask_check, ask_compare

ASK = {CallKind.GENERATE: ask_generate, CallKind.COMPARE: ask_compare, CallKind.CHECK: ask_check}
SLOTS = 24


@dataclass(slots=True)
class Filler:
    """Fills one store. `now` is its clock, in seconds since the epoch."""

    db: Database
    objects: ObjectStore
    now: float
    engine: Engine = field(default_factory=SceneEngine)
    workers: tuple[str, ...] = ("gpu-0@node1:4100:1", "gpu-1@node1:4101:1")
    _numbers: Any = field(default_factory=count)

    def job(
        self,
        lines: Sequence[Mapping[str, Any]],
        *,
        name: str = "",
        policy: Mapping[str, Any] | None = None,
        model: str = "scenes",
        **columns: Any,
    ) -> str:
        """Insert a running job with these query bodies (`custom_id` beside the body's fields)."""
        settings = Policy.from_mapping(policy or {})
        job_id = f"job_{int(self.now):08x}{next(self._numbers):016x}"
        with self.db.write() as conn:
            conn.execute(
                insert(Job.__table__),
                {
                    "id": job_id,
                    "project_id": "default",
                    "name": name,
                    "status": "running",
                    "model": model,
                    "policy": settings.to_mapping(),
                    "policy_digest": settings.digest,
                    "created_at": self.now,
                    "started_at": self.now,
                    **columns,
                },
            )
            conn.execute(insert(JobCounters.__table__), {"job_id": job_id, "total": len(lines), "waiting": len(lines)})
            for number, line in enumerate(lines, 1):
                body = {name: value for name, value in line.items() if name != "custom_id"}
                row = {"job_id": job_id, "line": number, "custom_id": line["custom_id"], "body": body}
                conn.execute(insert(Query.__table__), {**row, "created_at": self.now})
        return job_id

    def scenes(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Query bodies about drawn scenes, whose images are stored."""
        found = [scene(number) for number in numbers]
        if isinstance(self.engine, SceneEngine):
            self.engine.scenes.update({item.sha256: item for item in found})
        self.store(found)
        return [
            {
                "custom_id": f"scene-{number:04d}",
                "question": item.question,
                "images": [item.sha256],
                "choices": list(item.choices),
                "context": [],
                "policy": {},
                "answer": item.truth,
            }
            for number, item in zip(numbers, found, strict=True)
        ]

    def store(self, found: Sequence[Scene]) -> None:
        with self.db.write() as conn:
            known = set(conn.scalars(select(Blob.__table__.c.sha256)))
            for item in {each.sha256: each for each in found}.values():
                if item.sha256 not in known:
                    values = {
                        "sha256": item.sha256,
                        "project_id": "default",
                        "bytes": len(item.png),
                        "media_type": "image/png",
                    }
                    size = {"width": 90 * len(item.things) + 40, "height": 260, "created_at": self.now}
                    conn.execute(insert(Blob.__table__), {**values, **size})
        for item in found:
            self.objects.put(keys.blob(item.sha256), item.png, media_type="image/png", if_absent=True)

    def beat(self, worker: str, **columns: Any) -> None:
        """A worker's heartbeat row."""
        info = self.engine.info
        engine = {name: getattr(info, name) for name in info.__slots__}
        row = {"id": worker, "model": info.model, "engine": engine, "slots": SLOTS, "state": "ready", "wanted": "run"}
        times = {"version": "0.1.0", "started_at": self.now - 3600, "beat_at": self.now}
        with self.db.write() as conn:
            conn.execute(insert(Worker.__table__), {**row, **times, **columns})

    def run(self, job_id: str, *, queries_: int | None = None, steps: int | None = None) -> None:
        """Admit `queries_` of the job (all by default) and work until nothing is open, or for so many calls."""
        self._admit(job_id, queries_)
        hands: list[tuple[float, int, Any, str]] = []
        done = 0
        while steps is None or done < steps:
            self._take(job_id, hands)
            if not hands:
                return
            end, _, work, worker = heapq.heappop(hands)
            self.now = max(self.now, end)
            self._finish(work, worker)
            done += 1

    def end(self, job_id: str) -> None:
        """Finalize a job whose queries have all ended."""
        with self.db.write() as conn:
            row = jobs.get(conn, job_id)
            if row is not None and row.waiting + row.running == 0:
                transitions.move_job(conn, job_id, "finalizing", self.now, reason="all queries ended")
        finalize(self.db, self.objects, job_id, lambda: self.now, lambda kind: f"{kind}_{next(self._numbers):024x}")

    def _admit(self, job_id: str, most: int | None) -> None:
        with self.db.write() as conn:
            job = jobs.get(conn, job_id)
            assert job is not None
            rows = queries.next_waiting(conn, job_id, most if most is not None else job.waiting)
            columns = [
                {"started_at": self.now, "deadline_at": _deadline(job.policy, row.body, self.now)} for row in rows
            ]
            moves = [
                transitions.QueryMove(row.id, job_id, "running", values)
                for row, values in zip(rows, columns, strict=True)
            ]
            admitted = transitions.move_queries(conn, moves, self.now) if moves else set()
        advance(self.db, admitted, self.now)

    def _take(self, job_id: str, hands: list[tuple[float, int, Any, str]]) -> None:
        free = SLOTS * len(self.workers) - len(hands)
        if free <= 0:
            return
        with self.db.read() as conn:
            table = Call.__table__
            wanted = (table.c.job_id == job_id, table.c.status == "queued")
            ids = list(conn.scalars(select(table.c.id).where(*wanted).order_by(table.c.id).limit(free)))
        for place, worker in enumerate(self.workers):
            part = ids[place :: len(self.workers)]
            if not part:
                continue
            with self.db.write() as conn:
                claimed = calls.claim(conn, part, worker, self.now, 600.0)
                loaded = load_work(conn, claimed, Known())
            for work in loaded:
                end = self.now + self._seconds(work)
                heapq.heappush(hands, (end, next(self._numbers), work, worker))

    def _seconds(self, work: Any) -> float:
        crowd = 1.0 + 0.01 * (work.call.id % 17)
        if work.call.spec.kind is not CallKind.GENERATE:
            return 0.09 * crowd
        return {"summary": 0.8, "caption": 1.6, "reasoning": 3.1, "conclusion": 0.4}.get(
            work.call.spec.stage, 4.0
        ) * crowd

    def _finish(self, work: Any, worker: str) -> None:
        spec = work.call.spec
        identity = {"id": work.call.id, "query_id": work.call.query_id, "job_id": work.call.job_id}
        try:
            asked = ASK[spec.kind](self.engine, work, Terms(self._image, never, None))
            outcome = asked.read([future.result() for future in asked.futures])
            ended = calls.Ended(
                **identity,
                status=CallStatus.DONE,
                outcome=outcome_to_json(outcome.candidates, outcome.verdict),
                usage=outcome.usage.to_json(),
            )
        except (ModelError, Transient) as error:
            code = error.code if isinstance(error, ModelError) else "transient"
            why = CallError(code, str(error), attempts=1).to_json()
            ended = calls.Ended(**identity, status=CallStatus.FAILED, error=why)
        with self.db.write() as conn:
            calls.finish(conn, worker, [ended], self.now)
        advance(self.db, [work.call.query_id], self.now)

    def _image(self, sha256: str) -> bytes:
        return self.objects.read(keys.blob(sha256))
