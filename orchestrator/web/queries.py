"""The queries of a job as a list, and one query as it was thought through."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from starlette.responses import Response, StreamingResponse

from orchestrator import bulk
from orchestrator.api.errors import NotFound
from orchestrator.traces import decided, read_part
from orchestrator.web import rerun, thinking, timeline
from orchestrator.web.jobs import job_of, turn
from orchestrator.web.pages import Ask
from orchestrator.web.text import safe_utf8
from reasoning.errors import BadInput
from reasoning.policy import Policy
from reasoning.trace import build_trace
from storage import overview, planning, questions
from storage.queries import to_record
from storage.search import Terms, query_terms

PAGE = 100
PIECE = 64 * 1024
"""Characters of the raw document that are sent at once."""


def query_list(ask: Ask) -> Response:
    """Queries of a job in line order, filtered by the address."""
    text, problem = ask.query.get("filter", ""), None
    try:
        terms = query_terms(text)
    except BadInput as error:
        terms, problem = Terms(text), error.message
    after, before = _line(ask, "after"), _line(ask, "before")
    with ask.use.db.read() as conn:
        job = job_of(ask, conn)
        rows = [] if problem else questions.page(conn, job.id, terms, limit=PAGE, after=after or 0, before=before)
        total = 0 if problem else _total(conn, job, terms)
    shown, further, earlier = turn(rows, PAGE, after=after, before=before)
    pager = {"after": shown[-1].line if further else None, "before": shown[0].line if earlier else None}
    return ask.page(
        "queries.html",
        400 if problem else 200,
        job=job,
        rows=shown,
        filter=text,
        problem=problem,
        total=total,
        counted=questions.COUNTED,
        pager=pager,
    )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a query stands in the filter that led to it."""

    filter: str
    before: int | None
    after: int | None
    position: int
    total: int


def query_page(ask: Ask) -> Response:
    """One query: answer, stages, judge, timeline, raw."""
    with ask.use.db.read() as conn:
        row = query_of(ask, conn)
        job = owner(ask, conn, row)
        calls = questions.calls(conn, row.id)
        neighbours = questions.neighbours(conn, calls)
        place = _place(ask, conn, job, row)
        workers = overview.workers_named(conn, sorted({call.worker for call in calls if call.worker}))
        images = questions.images(conn, row.body.get("images") or ())
    policy, trace = trace_of(ask, job, row, calls)
    thought = thinking.view(trace, calls)
    return ask.page(
        "query.html",
        job=job,
        query=row,
        policy=policy,
        thought=thought,
        calls=calls,
        ids={call.key: call.id for call in calls},
        neighbours=neighbours,
        timeline=timeline.draw(calls, neighbours, ask.use.now()),
        place=place,
        workers=workers,
        images=images,
        act=_act(row),
        again=rerun.command(row.custom_id, row.body, policy, job.model),
        expected=_expected(row),
        live=row.status in ("waiting", "running"),
    )


def query_raw(ask: Ask) -> Response:
    """The trace document of a query as JSON, the same as the API's."""
    with ask.use.db.read() as conn:
        row = query_of(ask, conn)
        job = owner(ask, conn, row)
        calls = questions.calls(conn, row.id)
    _, trace = trace_of(ask, job, row, calls)
    headers = {
        "content-disposition": f'attachment; filename="query-{row.id}.json"',
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(_written(trace), headers=headers, media_type="application/json")


def _written(document: Mapping[str, Any]) -> Iterator[bytes]:
    """The document as indented JSON, piece by piece: its text never stands in memory as a whole."""
    piece: list[str] = []
    size = 0
    for token in json.JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False).iterencode(document):
        piece.append(token)
        size += len(token)
        if size >= PIECE:
            yield safe_utf8("".join(piece))
            piece, size = [], 0
    yield safe_utf8("".join(piece))


def query_of(ask: Ask, conn: Connection) -> Any:
    """The query that the address names. Raises NotFound."""
    number = ask.number("query_id")
    row = questions.get(conn, ask.viewer.project_id, number)
    if row is None:
        raise NotFound("query", number)
    return row


def owner(ask: Ask, conn: Connection, row: Any) -> Any:
    """The job of a query. Raises NotFound."""
    job = overview.job(conn, ask.viewer.project_id, row.job_id)
    if job is None:
        raise NotFound("job", row.job_id)
    return job


def trace_of(ask: Ask, job: Any, row: Any, calls: Sequence[Any]) -> tuple[Policy, dict[str, Any]]:
    """Policy and trace document of a query, from its call rows or from the part they were folded into."""
    policy = Policy.from_mapping(job.policy).with_overrides(row.body.get("policy") or {})
    if not calls and row.trace_key is not None:
        for document in read_part(ask.use.objects, row.trace_key):
            if document["id"] == row.id:
                return policy, document["trace"]
    records = [planning.to_record(call) for call in calls]
    if "question" not in row.body:
        return policy, _refused(row, policy)
    return policy, build_trace(policy, to_record(row.custom_id, row.body), records, decided(row))


def _refused(row: Any, policy: Policy) -> dict[str, Any]:
    """The trace of a line that validation refused: nothing was asked of a model."""
    nothing = {"kept": 0, "discarded": 0, "judged": 0, "total": {}}
    return {
        "custom_id": row.custom_id,
        "question": None,
        "choices": [],
        "images": [],
        "policy": policy.to_mapping(),
        "stages": [],
        "answer": None,
        "error": row.error,
        "usage": nothing,
    }


def _place(ask: Ask, conn: Connection, job: Any, row: Any) -> Place:
    text = ask.query.get("filter", "")
    try:
        terms = query_terms(text)
    except BadInput:
        text, terms = "", Terms()
    before, after = questions.beside(conn, job.id, terms, row.line)
    if not terms.fields and not terms.words:
        return Place(text, before, after, row.line, job.total)
    position = questions.count(conn, job.id, terms, up_to_line=row.line)
    return Place(text, before, after, position, _total(conn, job, terms))


def _total(conn: Connection, job: Any, terms: Terms) -> int:
    """How many queries the filter finds: from the counters where they know it, else counted up to a bound."""
    if not terms.fields and not terms.words:
        return int(job.total)
    if terms.only("status"):
        return sum(int(getattr(job, status)) for status in set(terms.fields["status"]))
    return questions.count(conn, job.id, terms)


def _act(row: Any) -> str | None:
    """What a person may do to a query in its state; a line that validation refused can only be mended."""
    if "question" not in row.body:
        return None
    return next((action for action, states in bulk.STATUSES.items() if row.status in states), None)


def _expected(row: Any) -> dict[str, Any] | None:
    """The known answer and whether the given one is the same text, where the line brought one."""
    known = row.body.get("answer")
    if known is None:
        return None
    known = known if isinstance(known, str) else str(known)
    same = None if row.answer is None else row.answer.strip().casefold() == known.strip().casefold()
    return {"answer": known, "same": same}


def _line(ask: Ask, name: str) -> int | None:
    value = ask.query.get(name, "")
    return int(value) if value.isdigit() and len(value) < 13 else None
