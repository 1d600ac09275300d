"""The list of jobs and the page of one job."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.responses import Response

from orchestrator.api.errors import NotFound
from orchestrator.web import causes, charts
from orchestrator.web.pages import Ask
from orchestrator.web.progress import progress
from reasoning.errors import BadInput
from storage import bulk, overview, questions
from storage.search import Terms, job_terms, query_terms

PAGE = 50
FIRST_QUERIES = 15
ACTING = 5
"""Bulk actions under way that the page of their job names."""
FAILURES_READ = 500
"""Failed queries looked at for the causes; the page says when there are more."""


def job_list(ask: Ask) -> Response:
    """Jobs newest first, filtered by the address."""
    text, problem = ask.query.get("filter", ""), None
    try:
        terms = job_terms(text)
    except BadInput as error:
        terms, problem = Terms(text), error.message
    after, before = ask.query.get("after"), ask.query.get("before")
    with ask.use.db.read() as conn:
        project = ask.viewer.project_id
        rows = [] if problem else overview.jobs_page(conn, project, terms, limit=PAGE, after=after, before=before)
        total = 0 if problem else overview.count_jobs(conn, project, terms)
    shown, older, newer = turn(rows, PAGE, after=after, before=before)
    views = [(row, progress(row)) for row in shown]
    pager = {"older": shown[-1].id if older else None, "newer": shown[0].id if newer else None}
    return ask.page(
        "jobs.html", 400 if problem else 200, jobs=views, filter=text, problem=problem, total=total, pager=pager
    )


def job_page(ask: Ask) -> Response:
    """One job: how far, what went wrong, what it used, its first queries."""
    with ask.use.db.read() as conn:
        job = job_of(ask, conn)
        stages = questions.stages(conn, job.id) if job.running else {}
        failed = overview.failures(conn, [job.id], FAILURES_READ) if job.failed + job.expired else ()
        rows = questions.page(conn, job.id, query_terms(""), limit=FIRST_QUERIES)
        by = overview.submitter(conn, job)
        acting = bulk.of_job(conn, job.id, ACTING, running=True)
        eta = ask.use.forecasts(conn, [job])[job.id]
    return ask.page(
        "job.html",
        job=job,
        progress=progress(job, eta),
        stages=stages,
        causes=causes.group(failed),
        failed_read=len(failed),
        rows=rows[:FIRST_QUERIES],
        tokens=token_bar(job),
        by=by,
        acting=acting,
        done=ask.query.get("done"),
        number=ask.query.get("n"),
    )


def job_of(ask: Ask, conn: Connection, name: str = "job_id") -> Any:
    """The job that the address names. Raises NotFound."""
    job = overview.job(conn, ask.viewer.project_id, ask.part(name))
    if job is None:
        raise NotFound("job", ask.part(name))
    return job


def token_bar(job: Any) -> list[charts.Segment]:
    """Generated tokens by fate."""
    parts = [(name, float(getattr(job, f"{name}_tokens"))) for name in ("kept", "discarded", "judged", "rerun")]
    return charts.stacked(parts)


def turn(rows: Any, size: int, *, after: Any, before: Any) -> tuple[list[Any], bool, bool]:
    """A part of a list with one row too many: the rows to show, and whether there are further ones on each side.

    Rows asked for with `before` come the other way round.
    """
    more, shown = len(rows) > size, list(rows[:size])
    if before is not None:
        return shown[::-1], True, more
    return shown, more, bool(after)
