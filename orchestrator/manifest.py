"""Manifests: what a run was made with, how its lines came out, and the size and hash of each file of results."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from reasoning.errors import BadInput
from storage import files
from storage.transitions import JOB_ENDED, QUERY_MOVES

VERSION = 1
ANSWERED = ("done", "degraded")
PARTS = {"output": ANSWERED, "error": tuple(state for state in QUERY_MOVES if state not in ANSWERED)}
"""The files of a job, and the states of the queries that stand in each."""


def of_job(conn: Connection, job: Any) -> dict[str, Any]:
    """The manifest of a job that has ended; `job` is its row with counters.

    Raises:
        BadInput: the job has not ended (`job_running`): its files are written at the end.
    """
    if job.status not in JOB_ENDED:
        raise BadInput(
            f"job {job.id} is {job.status}; its files and their manifest come at the end", code="job_running"
        )
    found = {name: file_of(conn, job, name) for name in PARTS}
    return {
        **head(job),
        "name": job.name,
        "status": job.status,
        "metadata": job.attributes or {},
        "created_at": job.created_at,
        "ended_at": job.ended_at,
        "counts": {"total": job.total, **{state: getattr(job, state) for state in QUERY_MOVES}},
        "files": [
            {
                **entry(f"{name}.jsonl", row.bytes, row.sha256),
                "lines": sum(getattr(job, state) for state in PARTS[name]),
                "file_id": row.id,
            }
            for name, row in found.items()
            if row is not None
        ],
    }


def head(job: Any) -> dict[str, Any]:
    """What every manifest begins with: the job, and all that its answers depend on beside its input."""
    return {
        "version": VERSION,
        "job_id": job.id,
        "model": job.model,
        "policy": job.policy,
        "policy_digest": job.policy_digest,
    }


def entry(name: str, size: int, sha256: str) -> dict[str, Any]:
    """A file as manifests list it."""
    return {"name": name, "bytes": size, "sha256": sha256}


def file_of(conn: Connection, job: Any, name: str) -> Any | None:
    """The row of the job's `output` or `error` file; None while it is not written, or when it would be empty."""
    file_id = getattr(job, f"{name}_file_id")
    return files.get(conn, job.project_id, file_id) if file_id else None
