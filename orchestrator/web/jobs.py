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
from storage.settings import Settings

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
        by = overview.submitters(conn, rows)
    shown, older, newer = turn(rows, PAGE, after=after, before=before)
    settings = ask.use.settings
    views = [(row, progress(row), cost_of(row, settings)) for row in shown]
    pager = {"older": shown[-1].id if older else None, "newer": shown[0].id if newer else None}
    return ask.page(
        "jobs.html",
        400 if problem else 200,
        jobs=views,
        filter=text,
        problem=problem,
        total=total,
        pager=pager,
        by=by,
        priced=settings.price_input is not None or settings.price_output is not None,
    )


def job_page(ask: Ask) -> Response:
    """One job: how far, what went wrong, what it used, its first queries."""
    with ask.use.db.read() as conn:
        job = job_of(ask, conn)
        stages = questions.stages(conn, job.id) if job.running else {}
        failed = overview.failures(conn, [job.id], FAILURES_READ) if job.failed + job.expired else ()
        rows = questions.page(conn, job.id, query_terms(""), limit=FIRST_QUERIES)
        by = overview.submitters(conn, [job]).get(job.id)
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
        cost=cost_of(job, ask.use.settings),
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


def cost_of(job: Any, settings: Settings) -> float | None:
    """What the tokens of a job cost at the prices that are set; None where none is."""
    if settings.price_input is None and settings.price_output is None:
        return None
    generated = job.kept_tokens + job.discarded_tokens + job.judged_tokens + job.rerun_tokens
    return float(job.prompt_tokens * (settings.price_input or 0) + generated * (settings.price_output or 0)) / 1e6


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
