"""Results that later runs take over instead of computing: one row per content key, pointing at the query behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, func, literal, or_, select
from sqlalchemy.orm import aliased

from storage.portable import any_of, insert_ignore
from storage.tables import Query, StoredResult

_QUERIES = Query.__table__
_RESULTS = StoredResult.__table__


def known(conn: Connection, content_keys: Sequence[str], *, hold: bool = False) -> dict[str, Any]:
    """The queries whose results are stored under these keys: answer, path and where their traces lie.

    With `hold` the results are locked against removal until the transaction ends, as whoever takes one over must do.
    """
    statement = (
        select(
            _RESULTS.c.content_key,
            _QUERIES.c.id,
            _QUERIES.c.answer,
            _QUERIES.c.format_ok,
            _QUERIES.c.path,
            _QUERIES.c.trace_key,
        )
        .join(_QUERIES, _QUERIES.c.id == _RESULTS.c.query_id)
        .where(any_of(_RESULTS.c.content_key, content_keys), _QUERIES.c.status == "done")
        .where(_QUERIES.c.trace_key.is_not(None), _QUERIES.c.content_key == _RESULTS.c.content_key)
    )
    if hold:
        statement = statement.order_by(_RESULTS.c.content_key).with_for_update(read=True, of=_RESULTS)
    return {row.content_key: row for row in conn.execute(statement)}


def remember(conn: Connection, job_id: str, after_line: int, count: int, now: float) -> int | None:
    """Store the results of up to `count` answered queries of a job after a line; the last line looked at, or None.

    A degraded answer is not stored: another run may do better.
    """
    statement = (
        select(_QUERIES.c.line, _QUERIES.c.id, _QUERIES.c.content_key)
        .where(_QUERIES.c.job_id == job_id, _QUERIES.c.line > after_line, _QUERIES.c.status == "done")
        .where(_QUERIES.c.reused_from.is_(None), _QUERIES.c.content_key.is_not(None))
        .order_by(_QUERIES.c.line)
        .limit(count)
    )
    rows = conn.execute(statement).all()
    if not rows:
        return None
    values = [
        {"content_key": row.content_key, "query_id": row.id, "job_id": job_id, "created_at": now}
        for row in sorted(rows, key=lambda row: str(row.content_key))
    ]
    conn.execute(insert_ignore(_RESULTS, conn), values)
    return int(rows[-1].line)


def compare(conn: Connection, job_id: str, previous_job_id: str | None) -> dict[str, int]:
    """Counts of a job's rows against those of the run before: new, changed, unchanged, removed, reused."""
    mine, theirs = aliased(_QUERIES), aliased(_QUERIES)
    total = select(func.count(), func.count(mine.c.reused_from)).where(mine.c.job_id == job_id)
    rows, reused = conn.execute(total).one()
    if previous_job_id is None:
        return {"rows": rows, "new": rows, "changed": 0, "unchanged": 0, "removed": 0, "reused": reused}
    pair = and_(theirs.c.job_id == previous_job_id, theirs.c.custom_id == mine.c.custom_id)
    both = select(
        func.count(), func.count().filter(or_(mine.c.content_key.is_(None), mine.c.content_key != theirs.c.content_key))
    ).select_from(mine.join(theirs, pair))
    shared, changed = conn.execute(both.where(mine.c.job_id == job_id)).one()
    before = conn.execute(select(func.count()).where(theirs.c.job_id == previous_job_id)).scalar_one()
    return {
        "rows": rows,
        "new": rows - shared,
        "changed": changed,
        "unchanged": shared - changed,
        "removed": before - shared,
        "reused": reused,
    }


def flips(
    conn: Connection, job_id: str, previous_job_id: str, *, after_line: int = 0, limit: int = 100
) -> Sequence[Any]:
    """Rows that both runs answered, differently: line, custom_id, both query ids and both answers, in line order."""
    mine, theirs = aliased(_QUERIES), aliased(_QUERIES)
    statement = (
        _differing(mine, theirs, job_id, previous_job_id)
        .add_columns(
            mine.c.line,
            mine.c.custom_id,
            mine.c.id.label("query_id"),
            theirs.c.id.label("previous_query_id"),
            mine.c.answer,
            theirs.c.answer.label("previous_answer"),
            mine.c.body,
        )
        .where(mine.c.line > after_line)
        .order_by(mine.c.line)
        .limit(limit)
    )
    return conn.execute(statement).all()


def count_flips(conn: Connection, job_id: str, previous_job_id: str) -> int:
    """How many rows both runs answered, differently."""
    mine, theirs = aliased(_QUERIES), aliased(_QUERIES)
    found = _differing(mine, theirs, job_id, previous_job_id).subquery()
    return int(conn.execute(select(func.count()).select_from(found)).scalar_one())


def _differing(mine: Any, theirs: Any, job_id: str, previous_job_id: str) -> Select[Any]:
    pair = and_(theirs.c.job_id == previous_job_id, theirs.c.custom_id == mine.c.custom_id)
    return (
        select(literal(1).label("one"))
        .select_from(mine.join(theirs, pair))
        .where(mine.c.job_id == job_id, mine.c.answer.is_not(None), theirs.c.answer.is_not(None))
        .where(mine.c.answer != theirs.c.answer)
    )


def answered_pages(conn: Connection, job_id: str, after_line: int, count: int) -> Sequence[Any]:
    """Line, body and answer of up to `count` queries of a job after a line, whatever became of them."""
    statement = (
        select(_QUERIES.c.line, _QUERIES.c.body, _QUERIES.c.answer)
        .where(_QUERIES.c.job_id == job_id, _QUERIES.c.line > after_line)
        .order_by(_QUERIES.c.line)
        .limit(count)
    )
    return conn.execute(statement).all()
