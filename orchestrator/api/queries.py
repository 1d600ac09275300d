"""One question: its answer, and the tree of stages, candidates and verdicts behind it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from orchestrator.api import reads
from orchestrator.api.access import Viewer
from orchestrator.api.documents import page, query_document
from orchestrator.api.errors import NotFound
from orchestrator.api.jobs import job_or_404
from orchestrator.api.paging import AfterLine, Filter, Limit, Statuses, known_statuses
from orchestrator.api.services import Services, Use
from orchestrator.traces import trace_of
from storage.access import Caller
from storage.search import query_terms
from storage.transitions import QUERY_MOVES

router = APIRouter(prefix="/api", tags=["queries"])

QueryId = Annotated[int, Path(ge=1, le=2**63 - 1)]


@router.get("/jobs/{job_id}/queries")
def list_queries(
    *,
    job_id: str,
    use: Use,
    caller: Viewer,
    limit: Limit = 100,
    after: AfterLine = 0,
    status: Statuses = [],  # noqa: B006 - FastAPI copies it
    custom_id: str | None = None,
    filter: Filter = "",  # noqa: A002 - the parameter's name
) -> dict[str, Any]:
    """Queries of a job in the order of the input."""
    job = job_or_404(use, caller, job_id)
    terms, status = query_terms(filter), known_statuses(status, QUERY_MOVES)
    with use.db.read() as conn:
        rows = reads.queries_page(conn, job.id, terms, limit=limit, after=after, status=status, custom_id=custom_id)
    return page(map(query_document, rows), limit=limit, cursor="line")


@router.get("/queries/{query_id}")
def show_query(query_id: QueryId, use: Use, caller: Viewer) -> dict[str, Any]:
    """One query."""
    return query_document(_query(use, caller, query_id))


@router.get("/queries/{query_id}/trace")
def show_trace(query_id: QueryId, use: Use, caller: Viewer) -> dict[str, Any]:
    """How the query was thought through, while it runs or after: stages, candidates, verdicts."""
    row = _query(use, caller, query_id)
    with use.db.read() as conn:
        trace = trace_of(conn, use.objects, query_id)
    return {"query": query_document(row), "trace": trace}


def _query(use: Services, caller: Caller, query_id: int) -> Any:
    with use.db.read() as conn:
        row = reads.query(conn, caller.project_id, query_id)
    if row is None:
        raise NotFound("query", query_id)
    return row
