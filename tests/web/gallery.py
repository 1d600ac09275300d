"""A store with one job of every kind, for looking at pages: `python -m tests.web.gallery FOLDER`, then serve it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from sqlalchemy import insert

from orchestrator.actions import pause_job
from orchestrator.rollup import RollupWriter
from storage import access, schema
from storage.database import Database, open_database
from storage.objects import ObjectStore, open_objects
from storage.settings import Settings
from storage.tables import QueueControl, Worker
from tests.web.filled import Filler
from tests.web.scenes import SceneEngine
from workers.engine.scripted import Script, ScriptedEngine


def fill(db: Database, objects: ObjectStore, now: float, scale: float = 1.0) -> dict[str, str]:
    """Fill the store so that the newest work goes on at `now`; the ids of the jobs by what they show.

    `scale` makes all jobs smaller.
    """

    def some(count: int, start: int = 0) -> range:
        return range(start, start + max(3, round(count * scale)))

    scenes = SceneEngine()
    made: dict[str, str] = {}
    yesterday = Filler(db, objects, now - 26 * 3600, scenes)
    made["labels"] = yesterday.job(
        yesterday.scenes(some(40)), name="shapes, four candidates", attributes={"nightly": "", "team": "vision"}
    )
    yesterday.run(made["labels"])
    yesterday.end(made["labels"])
    words = Filler(db, objects, now - 3000, scenes)
    made["words"] = words.job(
        words.scenes(some(24)), name="shapes, judge in words", policy={"judge": "words", "seed": 7}
    )
    words.run(made["words"])
    words.end(made["words"])
    published = Filler(db, objects, now - 2400, scenes)
    made["published"] = published.job(
        published.scenes(some(16)), name="shapes as published", policy={"mode": "published", "candidates": 5}
    )
    published.run(published_id := made["published"])
    published.end(published_id)
    single = Filler(db, objects, now - 2000, scenes)
    made["single"] = single.job(
        single.scenes(some(40)), name="shapes, no search", policy={"strategy": "single", "candidates": 1}
    )
    single.run(made["single"])
    single.end(made["single"])
    made["faults"] = _faults(db, objects, now - 1500, some(30))
    made["paused"] = _paused(db, objects, now - 700, scenes, some(30, 50))
    made["running"] = _running(db, objects, now, scenes, some(160, 100))
    _fleet(db, now)
    writer = RollupWriter(db)
    for step in range(9):
        writer.step(now + 6.0 * step)
    return made


def _faults(db: Database, objects: ObjectStore, at: float, numbers: range) -> str:
    script = Script(crash=0.06, truncation=0.1, duplicates=0.2, off_format=0.2, read_images=False, early_end=0.05)
    filler = Filler(db, objects, at, ScriptedEngine(script))
    lines = filler.scenes(numbers)
    job = filler.job(lines, name="flaky engine", policy={"judge": "words", "retries": 1}, model="scripted")
    filler.run(job)
    filler.end(job)
    return job


def _paused(db: Database, objects: ObjectStore, at: float, scenes: SceneEngine, numbers: range) -> str:
    filler = Filler(db, objects, at, scenes)
    job = filler.job(filler.scenes(numbers), name="charts, waiting for a decision")
    filler.run(job, queries_=len(numbers) // 3)
    pause_job(db, job, at + 60, "the captions look wrong, have them looked at first")
    return job


def _running(db: Database, objects: ObjectStore, now: float, scenes: SceneEngine, numbers: range) -> str:
    filler = Filler(db, objects, now - 95, scenes)
    job = filler.job(filler.scenes(numbers), name="shapes, nightly", policy={"seed": 11})
    part = max(2, len(numbers) // 7)
    filler.run(job, queries_=part)
    filler.now = now - 40
    filler.run(job, queries_=part)
    filler.now = now - 6
    filler.run(job, queries_=part, steps=6 * part)
    return job


def _fleet(db: Database, now: float) -> None:
    info = SceneEngine().info
    engine = {name: getattr(info, name) for name in info.__slots__}
    base = {"model": "scenes", "engine": engine, "slots": 24, "wanted": "run", "version": "0.1.0", "state": "ready"}
    hand = [{"id": 1200 + i, "query_id": 190 + i, "stage": "reasoning", "since": now - 2.5 + i / 9} for i in range(9)]
    counted = {"row_steps": 71_020.0, "row_places": 100_000.0, "generated_tokens": 1_204_233.0, "prefix_hits": 4120.0}
    held = {
        "process": {"used": 6_130_000_000, "most": 7_900_000_000, "total": 128 * 2**30},
        "device": {"used": 61 * 2**30, "most": 70 * 2**30, "total": 80 * 2**30},
    }
    stats = {"in_hand": 9, "threads": 24, "memory": held, "calls": {"done": 8211}, "engine": counted}
    rows = [
        {"id": "gpu-0@node1:4100:1", "in_hand": hand, "stats": stats, "started_at": now - 86000, "beat_at": now - 1},
        {
            "id": "gpu-1@node1:4101:1",
            "in_hand": [],
            "stats": {**stats, "in_hand": 0},
            "started_at": now - 86000,
            "beat_at": now - 2,
        },
        {"id": "gpu-2@node2:977:1", "in_hand": hand[:2], "stats": {}, "started_at": now - 9000, "beat_at": now - 400},
    ]
    with db.write() as conn:
        conn.execute(insert(Worker.__table__), [{**base, **row} for row in rows])
        conn.execute(
            insert(QueueControl.__table__),
            {"model": "large", "paused_at": now - 900, "reason": "driver update on node3", "actor": "key_ops"},
        )
        access.note(
            conn,
            project_id="default",
            actor="key_ops",
            action="queue.pause",
            subject="large",
            now=now - 900,
            reason="driver update on node3",
        )


def main() -> None:
    """Fill a fresh folder."""
    settings = Settings(data_dir=Path(sys.argv[1]))
    settings.data_dir.mkdir(parents=True)
    schema.upgrade(settings.effective_database_url)
    db = open_database(settings.effective_database_url)
    for name, job_id in fill(db, open_objects(settings), time.time()).items():
        sys.stdout.write(f"{name} {job_id}\n")


if __name__ == "__main__":
    main()
