"""`/v1/chat/completions`: one question now, through the same search, before all batches.

A client that goes away cancels. With `stream` the stages are told as comments, which clients skip, and the
answer comes as one piece: it is not known before the judge has chosen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import anyio
import structlog
from fastapi import APIRouter, Body, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from orchestrator import actions, completions
from orchestrator.api.access import Operator
from orchestrator.api.bodies import JsonRoute
from orchestrator.api.errors import envelope
from orchestrator.api.openai.models import answering
from orchestrator.api.openai.streaming import Chunks, comment, event
from orchestrator.api.openai.watching import Watcher
from orchestrator.api.services import Services, Use
from orchestrator.asking import Asked, ask
from orchestrator.intake.chat import read_body
from orchestrator.intake.chunks import resolve_chunk
from orchestrator.intake.fields import PolicyOverrides, told_at
from orchestrator.intake.ingest import open_resolver
from orchestrator.intake.keeper import BlobKeeper
from orchestrator.intake.records import AcceptedLine, LineError, Problems
from orchestrator.intake.resolve import Verified
from orchestrator.service import new_id
from orchestrator.submit import JobRequest, effective_policy
from orchestrator.traces import traces_of
from reasoning.errors import BadInput, Transient
from storage import jobs
from storage.access import Caller
from workers.messages import ADVANCE, ADVANCE_QUEUE
from workers.publish import Wakeup

log = structlog.get_logger()

router = APIRouter(route_class=JsonRoute, prefix="/v1/chat/completions", tags=["openai"])

KEEP_ALIVE_S = 10.0
"""A comment after this much silence, so that nobody between takes the connection for dead."""
GONE_S = 0.5
"""Between two looks whether the client is still there."""
SEES_NO_RETRY = {"x-should-retry": "false"}
"""Sent with failures that would fail again: clients repeat any 5xx otherwise."""

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["model", "messages"],
                    "properties": {
                        "model": {"type": "string"},
                        "messages": {"type": "array", "items": {"type": "object"}, "minItems": 1},
                        "stream": {"type": "boolean"},
                        "search": {"type": "object", "description": "Policy fields, and `trace`."},
                    },
                }
            }
        },
    }
}


class _Refused(Exception):
    """The question is wrong; every reason is listed."""

    def __init__(self, errors: list[LineError]) -> None:
        super().__init__(errors[0].message)
        self.errors = errors


@router.post("", openapi_extra=_BODY, response_class=JSONResponse)
async def create(body: Annotated[dict[str, Any], Body()], request: Request, use: Use, caller: Operator) -> Response:
    """Answer one question, now."""
    streamed = body.pop("stream", None)
    options = body.get("stream_options")
    try:
        if streamed not in (None, True, False):
            raise BadInput("stream must be true or false", code="invalid_type", field="stream")
        asked = await run_in_threadpool(_ask, use, caller, body)
    except _Refused as error:
        return _refusal(request, error)
    watcher = _watcher(request, use)
    if streamed:
        usage = isinstance(options, Mapping) and options.get("include_usage") is True
        chunks = _told(use, watcher, asked, include_usage=usage)
        return StreamingResponse(chunks, media_type="text/event-stream", headers={"cache-control": "no-store"})
    return await _waited(request, use, watcher, asked)


def _watcher(request: Request, use: Services) -> Watcher:
    """The application's one watcher, made when the first question comes."""
    state = request.app.state
    if not hasattr(state, "watcher"):
        state.watcher = Watcher(use.db)
    found: Watcher = state.watcher
    return found


def _ask(use: Services, caller: Caller, body: dict[str, Any]) -> Asked:
    model = answering(use, body["model"]) if isinstance(body.get("model"), str) else answering(use, None)
    policy = effective_policy(JobRequest(project_id=caller.project_id, input_file_id=None, model=model), use.settings)
    problems = Problems(1)
    line = read_body(body, "q-1", problems, PolicyOverrides(policy))
    if line is None:
        raise _Refused(problems.errors)
    images = _images(use, caller, line)
    with use.db.write() as conn:
        asked = ask(conn, caller.project_id, model, line, images, use.settings, use.now(), new_id)
    try:
        # Names no query: it has the orchestrator look for what may start, before its next look by itself.
        use.publisher.publisher.send([Wakeup(ADVANCE, {"query_ids": []}, ADVANCE_QUEUE, 0)])
    except Transient as error:
        log.warning("The orchestrator could not be woken.", action="chat.wake", job_id=asked.job_id, error=str(error))
    return asked


def _images(use: Services, caller: Caller, line: AcceptedLine) -> list[str]:
    """Content hashes of the images, stored by now. Raises _Refused."""
    if not line.images:
        return []
    with open_resolver(
        BlobKeeper(use.db, use.objects, caller.project_id, use.now), use.settings, Verified()
    ) as resolver:
        chunk = resolve_chunk([(1, line)], resolver)
    if chunk.refused:
        raise _Refused(list(chunk.refused[0][1].errors))
    return chunk.accepted[0][2]


def _refusal(request: Request, error: _Refused) -> Response:
    details = [_as_written(item) for item in error.errors]
    first = details[0]
    return envelope(request, 400, first["message"], code=first["code"], param=first["field"], details=details)


def _as_written(error: LineError) -> dict[str, Any]:
    """The error of a line by the names of this request, which is the `body` of such a line."""
    field = (error.field or "").removeprefix("body.") or None
    return {"field": field, "code": error.code, "message": told_at(error.message, error.field, field or "the body")}


async def _waited(request: Request, use: Services, watcher: Watcher, asked: Asked) -> Response:
    async with _cancelled_unless_ended(use, asked) as ended:
        waiting = asyncio.ensure_future(_last(watcher, asked))
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=GONE_S)
                if not waiting.done() and await request.is_disconnected():
                    return Response(status_code=499)  # read by nobody
        finally:
            waiting.cancel()
        row = waiting.result()
        ended.set()
    job, trace = await run_in_threadpool(_read, use, asked, row)
    if row.status in completions.ANSWERED:
        return JSONResponse(completions.completion(job, row, trace))
    error = _error(row)
    headers = {} if _may_pass_again(row) else SEES_NO_RETRY
    return JSONResponse({"error": error}, completions.status_of(row), headers)


async def _last(watcher: Watcher, asked: Asked) -> Any:
    rows = [row async for row in watcher.follow(asked.query_id)]
    return rows[-1]


async def _told(use: Services, watcher: Watcher, asked: Asked, *, include_usage: bool) -> AsyncIterator[bytes]:
    """The stream: comments while the search goes on, then the answer."""
    async with _cancelled_unless_ended(use, asked) as ended:
        yield comment(f"job {asked.job_id}")
        rows = watcher.follow(asked.query_id)
        following = asyncio.ensure_future(anext(rows, None))
        row: Any = None
        try:
            while True:
                await asyncio.wait([following], timeout=KEEP_ALIVE_S)
                if not following.done():
                    yield comment("still searching")
                    continue
                if (found := following.result()) is None:
                    break
                row = found
                yield comment(f"{row.status} {row.stage or ''}".strip())
                following = asyncio.ensure_future(anext(rows, None))
        finally:
            following.cancel()
        ended.set()
    job, trace = await run_in_threadpool(_read, use, asked, row)
    if row.status not in completions.ANSWERED:
        yield event({"error": _error(row)})
        return
    for chunk in Chunks(completions.completion(job, row, trace)).all(include_usage=include_usage):
        yield event(chunk)
    yield b"data: [DONE]\n\n"


def _read(use: Services, asked: Asked, row: Any) -> tuple[Any, dict[str, Any] | None]:
    wanted = (row.body.get("wire") or {}).get("trace")
    with use.db.read() as conn:
        job = jobs.get(conn, asked.job_id)
        return job, traces_of(conn, use.objects, job, [row])[row.id] if wanted else None


def _may_pass_again(row: Any) -> bool:
    """Whether to ask the same anew may help. It begins anew, so under a limit it would end where it ended."""
    error = row.error or {}
    return bool(error.get("retryable")) and error.get("code") not in completions.LIMITS


def _error(row: Any) -> dict[str, Any]:
    if completions.ended_with_job(row):
        code, message = completions.WITH_JOB[row.status]
        return {"message": message, "type": "server_error", "param": None, "code": code}
    return completions.error_of(row)


class _cancelled_unless_ended:  # noqa: N801 - read as a statement
    """Cancels the job when the block is left before `ended` is set: the client has gone."""

    def __init__(self, use: Services, asked: Asked) -> None:
        self._use = use
        self._asked = asked
        self._ended = asyncio.Event()

    async def __aenter__(self) -> asyncio.Event:
        return self._ended

    async def __aexit__(self, *_exc: object) -> None:
        if self._ended.is_set():
            return
        # The request itself may be cancelled; this must be done all the same.
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(self._cancel)

    def _cancel(self) -> None:
        try:
            # Nobody is left to read the answer.
            actions.cancel_job(self._use.db, self._asked.job_id, self._use.now(), "the client went away", at_once=True)
        except BadInput:
            return  # it ended in the meantime
        log.info("A client went away.", action="chat.gone", job_id=self._asked.job_id)
