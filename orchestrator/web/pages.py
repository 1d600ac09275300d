"""One page: who may see it, what answers it, and the checks that every request passes on its way there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from orchestrator.api.errors import NotFound, Refused
from orchestrator.api.services import Services
from orchestrator.web.access import SAFE_METHODS, LoginLimit, Viewer, same_origin, viewer_of
from orchestrator.web.broker import Broker
from orchestrator.web.pictures import Pictures
from orchestrator.web.render import Templates, address
from orchestrator.web.snapshot import Snapshot, Snapshots
from orchestrator.web.text import safe_utf8
from reasoning.errors import BadInput, StagebeamError, Transient
from storage.access import Caller, Role

log = structlog.get_logger()

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""Content security policy: nothing inline, nothing from elsewhere."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
STATUS = {"not_found": 404, "job_ended": 409, "job_running": 409, "nothing_to_retry": 409, "conflict": 409}
"""Status of input errors by their code; any other is 400."""
MAX_FIELDS = 200
MAX_TEXT = 8 * 2**20
"""Bytes of a text field: pasted lines; more belongs in a file."""


@dataclass(frozen=True, slots=True)
class Web:
    """What all pages share in one process. Nothing of it outlives the process, and nothing is lost with it."""

    use: Services
    templates: Templates
    snapshots: Snapshots
    broker: Broker
    pictures: Pictures = field(default_factory=Pictures)
    logins: LoginLimit = field(default_factory=LoginLimit)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request on its way to an answer."""

    web: Web
    request: Request
    viewer: Viewer
    form: FormData = field(default_factory=FormData)

    @property
    def use(self) -> Services:
        return self.web.use

    @property
    def query(self) -> QueryParams:
        return self.request.query_params

    def part(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name])

    def number(self, name: str) -> int:
        """A part of the path that is an id. Raises NotFound when it is none."""
        value = self.part(name)
        if not value.isdigit() or len(value) > 18:
            raise NotFound(name.removesuffix("_id"), value)
        return int(value)

    def field(self, name: str) -> str:
        """A text field of the form, stripped."""
        value = self.form.get(name, "")
        return value.strip() if isinstance(value, str) else ""

    def address(self, *parts: object, **params: object) -> str:
        """The address of a page below the path prefix; parameters that are None or empty are left out."""
        return address(self.use.settings.path_prefix, *parts, **params)

    def snapshot(self) -> Snapshot:
        """The shared snapshot, the same one for the whole request."""
        state = self.request.state
        if not hasattr(state, "snapshot"):
            state.snapshot = self.web.snapshots.get(self.viewer.project_id, self.use.now())
        found: Snapshot = state.snapshot
        return found

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Render a template. A GET answers 304 when the browser has the same page already."""
        now, notices = self.use.now(), self.snapshot().notices
        html = self.web.templates.render(template, ask=self, viewer=self.viewer, now=now, notices=notices, **values)
        return html_response(self.request, html, status)

    def go(self, *parts: object, **params: object) -> RedirectResponse:
        """Redirect to a page after a change."""
        return RedirectResponse(self.address(*parts, **params), 303, HEADERS)


Handler = Callable[[Ask], Response]


@dataclass(frozen=True, slots=True)
class Page:
    """One row of the route table."""

    method: str
    path: str
    role: Role | None
    """None: anybody, logged in or not."""
    handler: Handler
    about: str
    """A line for the documentation."""
    statements: int
    """Statements that the database may be asked at most, log-in and snapshot included."""
    files: int = 1
    """Files that its form may bring."""


def answer(web: Web, page: Page) -> Callable[[Request], Any]:
    """The endpoint of a page: checks first, then the handler, in a thread."""

    async def endpoint(request: Request) -> Response:
        form = FormData()
        try:
            unsafe = request.method not in SAFE_METHODS
            if unsafe:
                _refuse_foreign(web, request)
            # Before the body is read: an upload of a stranger must not reach the disk.
            viewer = await run_in_threadpool(_admit, web, page, request)
            if viewer is None:
                back = None if unsafe else request.scope["path"].removeprefix(request.scope.get("root_path", ""))
                return RedirectResponse(address(web.use.settings.path_prefix, "login", back=back), 303, HEADERS)
            if unsafe:
                form = await request.form(max_fields=MAX_FIELDS, max_files=page.files, max_part_size=MAX_TEXT)
            return await run_in_threadpool(page.handler, Ask(web, request, viewer, form))
        except Exception as error:  # whatever it is, a person gets a page
            return await run_in_threadpool(error_page, web, request, error)
        finally:
            await form.close()

    return endpoint


def _refuse_foreign(web: Web, request: Request) -> None:
    if not same_origin(request):
        raise Refused(403, "this form was not sent by a page of this server", "cross_site")
    login = request.url.path.endswith(("/login", "/logout"))
    if web.use.settings.read_only and not login:
        raise Refused(403, "this server is read-only (STAGEBEAM_READ_ONLY): it shows, it changes nothing", "read_only")


def _admit(web: Web, page: Page, request: Request) -> Viewer | None:
    """Who asks; None when they must log in first. Raises Refused when their role is too low."""
    viewer = viewer_of(web.use, request)
    request.state.viewer = viewer or NOBODY
    if page.role is None:
        return viewer or NOBODY
    if viewer is not None and not viewer.may(page.role):
        raise Refused(403, f"your key has the role {viewer.caller.role}; this needs {page.role}", "insufficient_role")
    return viewer


def html_response(request: Request, html: str, status: int = 200) -> Response:
    """A page with the headers that every page has."""
    body = safe_utf8(html)
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {**HEADERS, "etag": tag, "cache-control": "private, no-cache"}
    if status == 200 and request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers, media_type="text/html")


def error_page(web: Web, request: Request, error: Exception) -> Response:
    """A page that says what happened and what to do."""
    status, title, message = _explain(error)
    if status >= 500:
        log.error("A page met a defect.", action="web.defect", path=request.url.path, exc_info=error)
    html = web.templates.render(
        "error.html",
        title=title,
        message=message,
        status=status,
        viewer=getattr(request.state, "viewer", NOBODY),
        request_id=getattr(request.state, "request_id", ""),
    )
    return html_response(request, html, status)


def _explain(error: Exception) -> tuple[int, str, str]:
    if isinstance(error, BadInput):
        status = STATUS.get(error.code, 400)
        return status, "Not found" if status == 404 else "That did not work", error.message
    if isinstance(error, Transient):
        return 503, "A store does not answer", f"{error}. Reload the page in a moment."
    if isinstance(error, HTTPException) and not isinstance(error, StagebeamError):
        titles: Mapping[int, str] = {404: "Not found", 403: "Not allowed", 405: "Not possible"}
        detail = "there is no such page" if error.status_code == 404 else str(error.detail)
        return error.status_code, titles.get(error.status_code, "That did not work"), detail
    return 500, "Something broke", "This is a defect of stagebeam. The server's log has the details."


NOBODY = Viewer(Caller("", "viewer", None), "", read_only=True)
"""Who looks at the log-in page: of no project, so that nothing is found."""
