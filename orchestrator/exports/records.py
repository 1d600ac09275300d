"""Results of a job as records, page by page, and the cursor of those that ended so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, or_, select

from orchestrator.results import native_line
from orchestrator.traces import traces_of
from reasoning.errors import BadInput
from storage import jobs, queries
from storage.database import Database
from storage.objects import ObjectStore
from storage.tables import Query

_QUERIES = Query.__table__

PAGE = 200
LAG_S = 2.0
"""Rows younger than this wait while the job runs: a transaction that began before may still commit an older one."""

INPUT_FIELDS = ("question", "choices", "images", "context")


@dataclass(frozen=True, slots=True)
class Position:
    """After which of the queries that ended; its text is the cursor."""

    ended_at: float
    query_id: int

    def __str__(self) -> str:
        return f"{self.ended_at!r}:{self.query_id}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises BadInput on anything that is no cursor."""
        ended_at, _, query_id = text.partition(":")
        try:
            return cls(float(ended_at), int(query_id))
        except ValueError:
            raise BadInput(
                "after is no cursor; send the one of the last line you have", code="invalid_value", field="after"
            ) from None


def records(
    db: Database, objects: ObjectStore, job_id: str, *, trace: bool = False, joined: bool = False, after_line: int = 0
) -> Iterator[dict[str, Any]]:
    """Every query that ended, in line order from the line after `after_line`: line and the native result.

    If `joined`, the input's own fields too. What it called by other names stands under `metadata`; `exports.own` gives
    it its columns.
    """
    with db.read() as conn:
        job = jobs.get(conn, job_id)
    while job is not None:
        with db.read() as conn:
            page = queries.next_page(conn, job_id, after_line=after_line, size=PAGE)
            if page is None:
                return
            found = traces_of(conn, objects, job, page.rows) if trace else {}
        for row in page.rows:
            yield record_of(row, found.get(row.id), joined=joined)
        after_line = page.last_line


def ended_so_far(
    db: Database, job_id: str, after: Position | None, limit: int, now: float
) -> list[tuple[Position, dict[str, Any]]]:
    """The next results in the order in which they ended: nothing is met twice or missed while the job runs."""
    ended, key = _QUERIES.c.ended_at, _QUERIES.c.id
    with db.read() as conn:
        job = jobs.get(conn, job_id)
        until = now - LAG_S if job is not None and job.ended_at is None else float("inf")
        statement = select(_QUERIES).where(_QUERIES.c.job_id == job_id, _QUERIES.c.status.in_(queries.ENDED))
        if until != float("inf"):
            statement = statement.where(ended < until)
        if after is not None:
            statement = statement.where(
                or_(ended > after.ended_at, and_(ended == after.ended_at, key > after.query_id))
            )
        rows: Sequence[Any] = conn.execute(statement.order_by(ended, key).limit(limit)).all()
    return [(Position(row.ended_at, row.id), record_of(row, None)) for row in rows]


def record_of(row: Any, trace: Mapping[str, Any] | None, *, joined: bool = False) -> dict[str, Any]:
    """One result as a record."""
    record = {"line": row.line, **native_line(row, trace)}
    if joined:
        record |= {name: row.body.get(name) for name in INPUT_FIELDS}
        record["expected"] = row.body.get("answer")
        record["metadata"] = row.body.get("metadata") or {}
    return record
