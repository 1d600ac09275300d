"""Fold: calls of a job that ended long ago leave the database; their trace parts tell the same.

Every query's trace was written to the object store when its job ended. After the retention time the rows
behind it go, so that Postgres stays as small as the work in hand.
"""

from __future__ import annotations

import structlog

from storage import jobs, planning, queries
from storage.database import Database
from storage.settings import Settings

log = structlog.get_logger()

EVERY_S = 60.0
"""Between two looks for jobs whose retention ended."""
JOBS_AT_ONCE = 20
PAGE = 200
"""Queries per transaction."""


def fold(db: Database, settings: Settings, now: float) -> int:
    """Delete the call rows of jobs that ended before the retention time; returns how many jobs were folded.

    A query without a trace part keeps its rows.
    """
    with db.read() as conn:
        due = jobs.to_fold(conn, now - settings.retention_s, JOBS_AT_ONCE)
    for job_id in due:
        _fold_job(db, job_id, now)
    return len(due)


def _fold_job(db: Database, job_id: str, now: float) -> None:
    after_line = 0
    while True:
        with db.write() as conn:
            page = queries.next_page(conn, job_id, after_line=after_line, size=PAGE)
            if page is None:
                jobs.set_folded(conn, job_id, now)
                break
            planning.delete_calls(conn, [row.id for row in page.rows if row.trace_key is not None])
            after_line = page.last_line
    log.info("Calls were folded into their trace parts.", action="job.folded", job_id=job_id)
