"""Actions on many queries: what one would change, what it has changed so far, and the button that stops it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from starlette.responses import Response

from orchestrator import bulk
from orchestrator.api.errors import NotFound
from orchestrator.bulk import Action
from orchestrator.web import charts, numbers
from orchestrator.web.jobs import job_of
from orchestrator.web.pages import Ask
from reasoning.errors import BadInput
from storage import bulk as rows
from storage.search import query_terms

LATEST = 10
"""Earlier actions that the form lists."""


@dataclass(frozen=True, slots=True)
class Done:
    """How far an action is, by the lines of its job that it has looked at."""

    percent: str
    segments: list[charts.Segment]


def form(ask: Ask) -> Response:
    """What an action on a filter would change, before it does."""
    text = ask.query.get("filter", "")
    terms = query_terms(text)
    with ask.use.db.read() as conn:
        job = job_of(ask, conn)
        counts = {action: bulk.count(conn, job.id, terms, action) for action in bulk.STATUSES}
        earlier = rows.of_job(conn, job.id, LATEST)
    return ask.page("bulk.html", job=job, filter=text, counts=counts, most=bulk.COUNTED, earlier=earlier)


def run(ask: Ask) -> Response:
    """Begin it. What is little is done at once, the rest goes on without us."""
    action: Action = "cancel" if ask.field("action") == "cancel" else "retry"
    return begin(ask, action, ask.field("filter"))


def begin(ask: Ask, action: Action, text: str) -> Response:
    """Begin an action on the job of the address; leads to the job when all is done, else to the action's page."""
    with ask.use.db.read() as conn:
        job = job_of(ask, conn)
    given = reason(ask)
    action_id = bulk.start(ask.use.db, job.id, text, action, ask.use.now(), reason=given, actor=ask.viewer.actor)
    with ask.use.db.read() as conn:
        row = rows.row(conn, action_id)
    ask.web.snapshots.forget()
    if row.status == "running":
        return ask.go("jobs", job.id, "bulk", action_id)
    return ask.go("jobs", job.id, done=f"bulk_{action}", n=row.changed)


def progress(ask: Ask) -> Response:
    """An action: how far it is, who wanted it and why."""
    with ask.use.db.read() as conn:
        job = job_of(ask, conn)
        row = _action(ask, conn)
    seen = job.total if row.status == "done" else min(row.line, job.total)
    parts = [("running" if row.status == "running" else "kept", float(seen))]
    done = Done(numbers.percent(seen, job.total), charts.stacked(parts, total=job.total))
    return ask.page("bulk_action.html", job=job, action=row, done=done)


def stop(ask: Ask) -> Response:
    """End an action where it stands."""
    with ask.use.db.read() as conn:
        job = job_of(ask, conn)
        row = _action(ask, conn)
    bulk.stop(ask.use.db, row.id, ask.use.now(), actor=ask.viewer.actor)
    return ask.go("jobs", job.id, "bulk", row.id)


def reason(ask: Ask) -> str:
    """Why somebody does something. Raises BadInput when they do not say."""
    given = ask.field("reason")[:300]
    if not given:
        raise BadInput("say why: the reason is shown with the job and kept in the audit record", code="missing_reason")
    return given


def _action(ask: Ask, conn: Connection) -> Any:
    number = ask.number("action_id")
    row = rows.get(conn, ask.viewer.project_id, ask.part("job_id"), number)
    if row is None:
        raise NotFound("action", number)
    return row
