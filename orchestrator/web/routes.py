"""The table of all pages: method, address, role, handler. What is not in it does not exist."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from orchestrator.api.services import Services
from orchestrator.web import (
    bulk,
    calls,
    compare,
    failures,
    fleet,
    home,
    images,
    job_actions,
    jobs,
    judging,
    login,
    new_job,
    queries,
    records,
    refused,
    schedules,
)
from orchestrator.web.assets import Assets
from orchestrator.web.broker import Broker
from orchestrator.web.pages import Ask, Page, Web, answer
from orchestrator.web.render import Templates
from orchestrator.web.snapshot import Snapshots
from orchestrator.web.uploads import MAX_IMAGES

FILES = 1 + MAX_IMAGES
"""Of the submit form."""

PAGES: tuple[Page, ...] = (
    Page("GET", "/login", None, login.form, "log in with an API key", 10),
    Page("POST", "/login", None, login.enter, "begin a session", 12),
    Page("POST", "/logout", None, login.leave, "end the session", 3),
    Page("GET", "/", "viewer", home.overview, "what waits, what runs, who works, what needs a person", 10),
    Page("GET", "/jobs", "viewer", jobs.job_list, "jobs, filtered by the address", 12),
    Page("GET", "/new-job", "operator", new_job.form, "submit: the form", 15),
    Page(
        "POST",
        "/new-job",
        "operator",
        new_job.plan,
        "submit: lines checked, the cost and the first queries shown, nothing run",
        44,
        FILES,
    ),
    Page(
        "POST", "/new-job/errors", "operator", new_job.errors, "submit: all errors of the lines, CSV or JSON", 18, FILES
    ),
    Page("POST", "/new-job/run", "operator", new_job.run, "submit: do it", 18, FILES),
    Page("GET", "/jobs/{job_id}", "viewer", jobs.job_page, "progress, causes of failures, use, actions", 15),
    Page("POST", "/jobs/{job_id}/cancel", "operator", job_actions.cancel, "stop a job", 10),
    Page("POST", "/jobs/{job_id}/pause", "operator", job_actions.pause, "admit no more queries of a job", 10),
    Page("POST", "/jobs/{job_id}/resume", "operator", job_actions.resume, "admit queries again", 10),
    Page("POST", "/jobs/{job_id}/retry", "operator", job_actions.retry, "start what failed again", 30),
    Page("POST", "/jobs/{job_id}/remove", "admin", job_actions.remove, "remove the results of an ended job", 14),
    Page("GET", "/jobs/{job_id}/lines", "viewer", job_actions.lines, "result lines as a download", 6),
    Page("GET", "/jobs/{job_id}/manifest", "viewer", job_actions.manifest_of, "counts and hashes as a download", 8),
    Page("GET", "/jobs/{job_id}/errors", "viewer", refused.of_job, "errors of the input, CSV or JSON lines", 10),
    Page("GET", "/jobs/{job_id}/queries", "viewer", queries.query_list, "queries, filtered by the address", 13),
    Page("GET", "/jobs/{job_id}/bulk", "operator", bulk.form, "what an action on a filter would change", 15),
    Page("POST", "/jobs/{job_id}/bulk", "operator", bulk.run, "retry or cancel what a filter finds", 30),
    Page("GET", "/jobs/{job_id}/bulk/{action_id}", "viewer", bulk.progress, "how far such an action is", 13),
    Page("POST", "/jobs/{job_id}/bulk/{action_id}/stop", "operator", bulk.stop, "end it where it stands", 12),
    Page("GET", "/jobs/{job_id}/judge", "viewer", judging.health, "how the judge of a job did", 13),
    Page("GET", "/queries/{query_id}", "viewer", queries.query_page, "answer, stages, judge, timeline, raw", 17),
    Page("GET", "/queries/{query_id}/raw", "viewer", queries.query_raw, "the trace document", 6),
    Page("GET", "/queries/{query_id}/calls/{call_id}", "viewer", calls.call_page, "a call: the prompt as sent", 14),
    Page("GET", "/queries/{query_id}/verdicts/{stage}/{number}", "viewer", calls.verdict_page, "a match", 13),
    Page("GET", "/queries/{query_id}/diff/{stage}", "viewer", calls.diff_page, "two candidates, word by word", 13),
    Page("GET", "/compare", "viewer", compare.compare, "two jobs over the same questions", 14),
    Page("GET", "/workers", "viewer", fleet.workers, "queues and workers", 10),
    Page("POST", "/queues/pause", "operator", fleet.pause_queue, "admit no more queries of a model", 6),
    Page("POST", "/queues/resume", "operator", fleet.resume_queue, "admit queries of a model again", 6),
    Page("POST", "/queues/send", "operator", fleet.send_again, "send the messages of queued calls anew", 6),
    Page("POST", "/workers/drain", "operator", fleet.drain, "finish what is in hand and take nothing more", 6),
    Page("GET", "/failures", "viewer", failures.failures, "what failed lately, by cause", 12),
    Page("GET", "/audit", "viewer", records.audit, "who did what, and why", 11),
    Page("GET", "/settings", "admin", records.settings, "effective settings", 10),
    Page("GET", "/images/{sha256}", "viewer", images.picture, "an image, written anew", 3),
    Page("GET", "/images/{sha256}/original", "viewer", images.original, "an image as sent, as a download", 3),
)
"""Statement budgets include the look at the session and, where it is due, the shared snapshot (seven statements)."""


def make_pages(services: Services) -> list[BaseRoute]:
    """The routes of the pages, to be added after all others: the last one answers what nobody else does."""
    assets = Assets()
    templates = Templates(services.settings.path_prefix, assets, services.settings.environment)
    snapshots = Snapshots(services.db, services.settings.heartbeat_s)
    web = Web(services, templates, snapshots, Broker(services.publisher))
    routes: list[BaseRoute] = [
        Route(page.path, answer(web, page), methods=[page.method]) for page in (*PAGES, *schedules.PAGES)
    ]
    routes.append(Route("/static/{name}", assets.serve, methods=["GET"]))
    routes.append(_Elsewhere("/{rest:path}", answer(web, NOWHERE), methods=["GET"]))
    return routes


def _not_found(_ask: Ask) -> Response:
    raise HTTPException(404)


NOWHERE = Page("GET", "/{rest:path}", None, _not_found, "a page that does not exist", 3)
OTHERS = ("/api", "/v1", "/health", "/metrics")
"""Below these addresses programs ask, and get the JSON of the API when there is nothing."""


class _Elsewhere(Route):
    """Every address that nothing else answers, those of programs left out."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["path"].removeprefix(scope.get("root_path", "")).startswith(OTHERS):
            return Match.NONE, {}
        return super().matches(scope)
