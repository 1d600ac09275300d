"""What pages ask of the queries of a job: pages by line, places in a filter, the calls behind one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, literal, select

from storage.portable import any_of
from storage.search import Terms, query_conditions
from storage.tables import Blob, Call, Job, Query

_JOBS = Job.__table__
_QUERIES = Query.__table__
_CALLS = Call.__table__
_BLOBS = Blob.__table__

COUNTED = 2_000
"""Totals are exact up to here; beyond, pages say so."""
NEIGHBOUR_IDS = 600
"""Calls with ids this close to a query's own may have run beside them."""

LISTED: tuple[Any, ...] = (
    *(_QUERIES.c.id, _QUERIES.c.job_id, _QUERIES.c.line, _QUERIES.c.custom_id, _QUERIES.c.status, _QUERIES.c.stage),
    *(_QUERIES.c.body, _QUERIES.c.answer, _QUERIES.c.format_ok, _QUERIES.c.degraded_reason, _QUERIES.c.error),
    *(_QUERIES.c.usage, _QUERIES.c.retries, _QUERIES.c.created_at, _QUERIES.c.started_at, _QUERIES.c.ended_at),
)


def page(
    conn: Connection, job_id: str, terms: Terms, *, limit: int, after: int = 0, before: int | None = None
) -> Sequence[Row[Any]]:
    """Queries in line order, `limit + 1` at most, after the line `after`.

    With `before` they come in falling order from there: the caller turns them round.
    """
    statement = select(*LISTED).where(_QUERIES.c.job_id == job_id, *query_conditions(terms))
    if before is not None:
        statement = statement.where(_QUERIES.c.line < before).order_by(_QUERIES.c.line.desc())
    else:
        statement = statement.where(_QUERIES.c.line > after).order_by(_QUERIES.c.line)
    return conn.execute(statement.limit(limit + 1)).all()


def count(conn: Connection, job_id: str, terms: Terms, *, up_to_line: int | None = None) -> int:
    """How many queries the filter finds (up to a line), counted up to `COUNTED + 1`."""
    where = [_QUERIES.c.job_id == job_id, *query_conditions(terms)]
    if up_to_line is not None:
        where.append(_QUERIES.c.line <= up_to_line)
    found = select(literal(1)).select_from(_QUERIES).where(*where).limit(COUNTED + 1).subquery()
    return int(conn.execute(select(func.count()).select_from(found)).scalar_one())


def beside(conn: Connection, job_id: str, terms: Terms, line: int) -> tuple[int | None, int | None]:
    """Ids of the queries before and after a line in the filter."""
    where = (_QUERIES.c.job_id == job_id, *query_conditions(terms))
    sides = ((_QUERIES.c.line < line, _QUERIES.c.line.desc()), (_QUERIES.c.line > line, _QUERIES.c.line))
    parts = [
        select(_QUERIES.c.id).where(*where, side).order_by(order).limit(1).scalar_subquery() for side, order in sides
    ]
    row = conn.execute(select(*parts)).one()
    return row[0], row[1]


def get(conn: Connection, project_id: str, query_id: int) -> Row[Any] | None:
    """A query of the project."""
    statement = select(_QUERIES).join(_JOBS, _JOBS.c.id == _QUERIES.c.job_id)
    return conn.execute(statement.where(_QUERIES.c.id == query_id, _JOBS.c.project_id == project_id)).one_or_none()


def calls(conn: Connection, query_id: int) -> Sequence[Row[Any]]:
    """All call rows of a query, oldest first."""
    return conn.execute(select(_CALLS).where(_CALLS.c.query_id == query_id).order_by(_CALLS.c.id)).all()


def neighbours(conn: Connection, rows: Sequence[Row[Any]]) -> dict[int, int]:
    """By call id, how many calls of other queries ran on the same worker at some moment of its run.

    Looked for among the calls written about the same time, so the numbers are at least these.
    """
    ran = [row for row in rows if row.worker and row.started_at and row.ended_at]
    if not ran:
        return {}
    other, own = _CALLS.alias("other"), _CALLS.alias("own")
    low, high = min(row.id for row in ran) - NEIGHBOUR_IDS, max(row.id for row in ran) + NEIGHBOUR_IDS
    overlap = and_(
        other.c.worker == own.c.worker,
        other.c.query_id != own.c.query_id,
        other.c.started_at < own.c.ended_at,
        other.c.ended_at > own.c.started_at,
    )
    statement = (
        select(own.c.id, func.count())
        .join(other, overlap)
        .where(any_of(own.c.id, [row.id for row in ran]), other.c.id.between(low, high))
        .group_by(own.c.id)
    )
    return {row[0]: row[1] for row in conn.execute(statement)}


def images(conn: Connection, hashes: Sequence[str]) -> dict[str, Row[Any]]:
    """Rows of images by content hash; one that is not stored is left out."""
    if not hashes:
        return {}
    rows = conn.execute(select(_BLOBS).where(any_of(_BLOBS.c.sha256, hashes)))
    return {row.sha256: row for row in rows}


def stages(conn: Connection, job_id: str) -> dict[str, int]:
    """Running queries of a job by the stage where they stand."""
    where = (_QUERIES.c.job_id == job_id, _QUERIES.c.status == "running")
    statement = select(_QUERIES.c.stage, func.count()).where(*where).group_by(_QUERIES.c.stage)
    return {row[0] or "": row[1] for row in conn.execute(statement)}


def at_lines(conn: Connection, job_id: str, lines: Sequence[int]) -> Sequence[Row[Any]]:
    """The queries on these lines, whole."""
    statement = select(_QUERIES).where(_QUERIES.c.job_id == job_id, any_of(_QUERIES.c.line, lines))
    return conn.execute(statement.order_by(_QUERIES.c.line)).all()


def judge_outcomes(conn: Connection, query_ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Stage, kind, status, outcome and usage of the judge calls of these queries."""
    columns: tuple[Any, ...] = (
        _CALLS.c.query_id,
        _CALLS.c.stage,
        _CALLS.c.kind,
        _CALLS.c.status,
        _CALLS.c.outcome,
        _CALLS.c.usage,
    )
    statement = select(*columns).where(any_of(_CALLS.c.query_id, query_ids), _CALLS.c.kind.in_(("compare", "check")))
    return conn.execute(statement).all()


_TOLD = (("question", "question"), ("answer", "known"))
"""Of a line's body, and its name in a pair."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One question in two jobs, ended in both."""

    line: int
    """In the first job."""
    custom_id: str
    question: str | None
    known: str | None
    a_id: int
    a_status: str
    a_answer: str | None
    b_id: int
    b_status: str
    b_answer: str | None


def pairs(conn: Connection, a_job: str, b_job: str, *, after: int, lines: int) -> tuple[list[Pair], int | None]:
    """Questions of both jobs among the next `lines` of the first; the last line looked at, None when it was the last.

    Two look-ups by index rather than one join, which Postgres would do by reading the whole second job.
    """
    ended = _QUERIES.c.status.not_in(("waiting", "running"))
    columns: tuple[Any, ...] = (_QUERIES.c.id, _QUERIES.c.custom_id, _QUERIES.c.status, _QUERIES.c.answer)
    window = (_QUERIES.c.job_id == a_job, _QUERIES.c.line > after)
    body = tuple(_QUERIES.c.body[name].as_string().label(label) for name, label in _TOLD)
    first = select(_QUERIES.c.line, *body, *columns).where(*window)
    rows = conn.execute(first.order_by(_QUERIES.c.line).limit(lines + 1)).all()
    names = any_of(_QUERIES.c.custom_id, [row.custom_id for row in rows[:lines]])
    second = select(*columns).where(_QUERIES.c.job_id == b_job, names, ended)
    others = {row.custom_id: row for row in conn.execute(second)} if rows else {}
    found = [
        Pair(
            line=row.line,
            custom_id=row.custom_id,
            question=row.question,
            known=row.known,
            a_id=row.id,
            a_status=row.status,
            a_answer=row.answer,
            b_id=other.id,
            b_status=other.status,
            b_answer=other.answer,
        )
        for row in rows[:lines]
        if row.status not in ("waiting", "running") and (other := others.get(row.custom_id)) is not None
    ]
    return found, rows[lines - 1].line if len(rows) > lines else None
