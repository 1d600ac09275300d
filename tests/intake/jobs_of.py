"""A stack for ingest tests: one database, one folder of objects, and short cuts to submit and look."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from orchestrator.intake.ingest import IngestResult, ingest
from orchestrator.submit import JobRequest, submit
from storage import files
from storage.database import Database
from storage.objects import ObjectStore, open_objects
from storage.settings import Settings
from storage.tables import Job, JobCounters, Query

NUMBERS = count(1)

QUERIES = Query.__table__


def new_id(prefix: str) -> str:
    return f"{prefix}_{next(NUMBERS):08d}"


@dataclass
class Stack:
    """Everything that ingest needs, over one database."""

    db: Database
    settings: Settings
    objects: ObjectStore = field(init=False)

    def __post_init__(self) -> None:
        self.objects = open_objects(self.settings)

    def upload(self, data: bytes) -> str:
        """Store an input file; its id."""
        file_id = new_id("file")
        key = f"files/{file_id}"
        self.objects.put(key, data)
        with self.db.write() as conn:
            files.create(
                conn,
                id=file_id,
                project_id="default",
                purpose="batch",
                filename="in.jsonl",
                bytes=len(data),
                sha256="0" * 64,
                object_key=key,
                now=1.0,
            )
        return file_id

    def submit(self, data: bytes, **request: Any) -> str:
        """Submit a file as a job; its id."""
        wanted = JobRequest(project_id="default", input_file_id=self.upload(data), model="scripted", **request)
        with self.db.write() as conn:
            return submit(conn, wanted, self.settings, 10.0, new_id)

    def ingest(self, job_id: str, **more: Any) -> IngestResult:
        return ingest(self.db, self.objects, self.settings, job_id, lambda: 20.0, **more)

    def job(self, job_id: str) -> Any:
        with self.db.read() as conn:
            return conn.execute(select(Job.__table__).where(Job.__table__.c.id == job_id)).one()

    def counts(self, job_id: str) -> dict[str, int]:
        """Counters that are not zero; they must agree with the rows."""
        counters = JobCounters.__table__
        with self.db.read() as conn:
            row = conn.execute(select(counters).where(counters.c.job_id == job_id)).one()
            by_status = select(QUERIES.c.status, func.count()).where(QUERIES.c.job_id == job_id)
            counted = dict(tuple(row) for row in conn.execute(by_status.group_by(QUERIES.c.status)))
        shown = {name: getattr(row, name) for name in ("total", "waiting", "running", "failed") if getattr(row, name)}
        assert shown == ({"total": sum(counted.values()), **counted} if counted else {})
        return shown

    def rows(self, job_id: str) -> list[tuple[Any, ...]]:
        """Line, custom_id, status, body and error of every query in line order."""
        columns = (QUERIES.c.line, QUERIES.c.custom_id, QUERIES.c.status, QUERIES.c.body, QUERIES.c.error)
        with self.db.read() as conn:
            found = conn.execute(select(*columns).where(QUERIES.c.job_id == job_id).order_by(QUERIES.c.line))
            return [tuple(row) for row in found]


def stack(database: Database, folder: Path, **settings: Any) -> Stack:
    """A stack whose image root is `folder`/images."""
    (folder / "images").mkdir(exist_ok=True)
    return Stack(database, Settings(data_dir=folder / "data", image_roots=[folder / "images"], **settings))
