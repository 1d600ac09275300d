"""What a project may take: its limits, and where they are held.

The four limits are keys of `projects.limits`; an absent one means unlimited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, func, select

from reasoning.cost import cost_of
from reasoning.errors import BadInput, nearest
from reasoning.policy import Policy
from storage import files
from storage.jobs import JobLoad
from storage.tables import Job, JobCounters, Project
from workers.messages import PRIORITIES

LIMITS = ("queries_in_flight", "queued_tokens", "storage_bytes", "requests_per_minute")

_PROJECTS = Project.__table__
_JOBS = Job.__table__
_COUNTERS = JobCounters.__table__

_OPEN = ("validating", "running", "cancelling")


def checked_limits(data: Mapping[str, Any]) -> dict[str, int]:
    """The limits as they are stored; a null takes one away. Raises BadInput on an unknown name or a bad number."""
    for name, value in data.items():
        if name not in LIMITS:
            hint = nearest(name, LIMITS)
            raise BadInput(f'unknown limit "{name}".{hint} Use: {", ".join(LIMITS)}.', code="unknown_field", field=name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise BadInput(f"{name} must be a whole number of 1 or more, or null", code="invalid_value", field=name)
    return {name: int(value) for name, value in data.items() if value is not None}


def lock_project(conn: Connection, project_id: str) -> Mapping[str, Any]:
    """The project's limits, its row locked until the transaction ends: what is checked and added stays true.

    The lock lets others insert rows that refer to the project.
    """
    statement = select(_PROJECTS.c.limits).where(_PROJECTS.c.id == project_id).with_for_update(key_share=True)
    return conn.execute(statement).scalar_one() or {}


def limits_of(conn: Connection, project_id: str) -> Mapping[str, Any]:
    """The project's limits."""
    return conn.execute(select(_PROJECTS.c.limits).where(_PROJECTS.c.id == project_id)).scalar_one_or_none() or {}


def check_storage(conn: Connection, project_id: str, limits: Mapping[str, Any], size: int) -> None:
    """Refuse a file of `size` bytes that does not fit. Raises BadInput (`storage_limit_exceeded`)."""
    limit = limits.get("storage_bytes")
    if limit is None:
        return
    used = files.stored_bytes(conn, project_id)
    if used + size > limit:
        raise BadInput(
            f"the project keeps {used} of {limit} bytes and this file has {size}; delete files it no longer needs, "
            "or have an admin raise storage_bytes",
            code="storage_limit_exceeded",
            field="file",
        )


def queue_overrun(conn: Connection, job_id: str) -> BadInput | None:
    """Why a validated job may not be queued: the tokens that the project then waits for pass its limit.

    Tokens are counted as the policy implies them at most, as hosted services count an output limit.
    """
    project_id = conn.execute(select(_JOBS.c.project_id).where(_JOBS.c.id == job_id)).scalar_one()
    limit = limits_of(conn, project_id).get("queued_tokens")
    if limit is None:
        return None
    statement = (
        select(_JOBS.c.id, _JOBS.c.policy, _COUNTERS.c.waiting + _COUNTERS.c.running)
        .join(_COUNTERS, _COUNTERS.c.job_id == _JOBS.c.id)
        .where(_JOBS.c.project_id == project_id, _JOBS.c.status.in_(_OPEN))
    )
    queued = {row[0]: cost_of(Policy.from_mapping(row[1]), row[2]).tokens_max for row in conn.execute(statement)}
    own, total = queued.get(job_id, 0), sum(queued.values())
    if total <= limit:
        return None
    return BadInput(
        f"this job may generate {own} tokens and the project's other open jobs {total - own}, which passes its limit "
        f"of {limit} queued tokens; submit it when others have ended, in smaller parts, or with fewer candidates or "
        "max_tokens",
        code="token_limit_exceeded",
    )


def in_flight_room(conn: Connection, job_ids: list[str]) -> dict[str, tuple[str, int]]:
    """Project and free places in flight, by job, for those of the jobs whose project limits them."""
    statement = select(_JOBS.c.id, _JOBS.c.project_id, _PROJECTS.c.limits).join(
        _PROJECTS, _PROJECTS.c.id == _JOBS.c.project_id
    )
    rows = conn.execute(statement.where(_JOBS.c.id.in_(job_ids))).all()
    limited = {row.project_id: row.limits["queries_in_flight"] for row in rows if _limits_flight(row.limits)}
    if not limited:
        return {}
    running = (
        select(_JOBS.c.project_id, func.sum(_COUNTERS.c.running))
        .join(_COUNTERS, _COUNTERS.c.job_id == _JOBS.c.id)
        .where(_JOBS.c.project_id.in_(limited), _JOBS.c.status.in_(_OPEN))
        .group_by(_JOBS.c.project_id)
    )
    used = {row[0]: int(row[1]) for row in conn.execute(running)}
    return {
        row.id: (row.project_id, limited[row.project_id] - used.get(row.project_id, 0))
        for row in rows
        if row.project_id in limited
    }


def capped(loads: Sequence[JobLoad], room: Mapping[str, tuple[str, int]]) -> list[JobLoad]:
    """The loads with no more waiting queries shown than their projects have free places for, urgent jobs first."""
    left: dict[str, int] = {}
    shown: dict[str, JobLoad] = {}
    for load in sorted(loads, key=lambda load: PRIORITIES[load.priority]):
        shown[load.job_id] = load
        if load.job_id in room:
            project_id, free = room[load.job_id]
            waiting = min(load.waiting, max(0, left.setdefault(project_id, free)))
            left[project_id] -= waiting
            shown[load.job_id] = replace(load, waiting=waiting)
    return [shown[load.job_id] for load in loads]


def _limits_flight(limits: Mapping[str, Any] | None) -> bool:
    return bool(limits) and (limits or {}).get("queries_in_flight") is not None
