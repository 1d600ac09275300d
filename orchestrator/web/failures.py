"""What failed lately over all jobs, by cause."""

from __future__ import annotations

from starlette.responses import Response

from orchestrator.web import causes
from orchestrator.web.pages import Ask
from storage import overview

READ = 100
"""Failed queries looked at of each job."""


def failures(ask: Ask) -> Response:
    """Causes of the jobs that need attention, most frequent first."""
    snap = ask.snapshot()
    jobs = {job.id: job for job in snap.attention if job.failed + job.expired}
    with ask.use.db.read() as conn:
        rows = overview.failures(conn, sorted(jobs), READ)
    found = causes.group(rows)
    cut = {job.id for job in jobs.values() if job.failed + job.expired > READ}
    return ask.page("failures.html", causes=found, jobs=jobs, cut=cut, read=READ)
