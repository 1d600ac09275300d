"""One question now: a job of one query, made and started without a file, and found again when it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, select

from orchestrator.intake.records import AcceptedLine
from orchestrator.intake.rows import NewQuery, insert_queries
from orchestrator.submit import JobRequest, submit
from storage import transitions
from storage.settings import Settings
from storage.tables import Query

_QUERIES = Query.__table__


@dataclass(frozen=True, slots=True)
class Asked:
    """The job and the query of a question."""

    job_id: str
    query_id: int


def ask(  # noqa: PLR0913, PLR0917 - what a job and a query are made of
    conn: Connection,
    project_id: str,
    model: str,
    line: AcceptedLine,
    images: list[str],
    settings: Settings,
    now: float,
    ids: Callable[[str], str],
    metadata: Mapping[str, Any] | None = None,
) -> Asked:
    """Write job and query, ready to be admitted before all batches. `images` are content hashes.

    Raises:
        BadInput: the policy of the line cannot be used.
    """
    request = JobRequest(
        project_id=project_id,
        input_file_id=None,
        model=model,
        priority="interactive",
        line_format="openai",
        attributes=metadata,
        source="chat",
    )
    job_id = submit(conn, request, settings, now, ids)
    body = orjson.dumps(line.body(images)).decode()
    insert_queries(conn, job_id, [NewQuery(1, line.custom_id, body)], now)
    transitions.add_counts(conn, job_id, {"total": 1, "waiting": 1})
    transitions.move_job(conn, job_id, "running", now, reason="asked directly", ingested_lines=1)
    query_id = conn.execute(select(_QUERIES.c.id).where(_QUERIES.c.job_id == job_id)).scalar_one()
    return Asked(job_id, int(query_id))
