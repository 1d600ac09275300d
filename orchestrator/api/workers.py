"""The workers that say they live, and draining one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from sqlalchemy import update

from orchestrator.api import reads
from orchestrator.api.access import Operator, Viewer, record
from orchestrator.api.documents import page, worker_document
from orchestrator.api.errors import NotFound
from orchestrator.api.paging import After, DryRun, Limit
from orchestrator.api.services import Use
from storage.tables import Worker

router = APIRouter(prefix="/api/workers", tags=["workers"])

_WORKERS = Worker.__table__


@router.get("")
def list_workers(use: Use, _caller: Viewer, limit: Limit = 100, after: After = None) -> dict[str, Any]:
    """Workers heard of in the last day."""
    now = use.now()
    with use.db.read() as conn:
        rows = reads.workers_page(conn, now, limit=limit, after=after)
    return page((worker_document(row, now, use.settings.heartbeat_s) for row in rows), limit=limit)


@router.post("/{worker_id:path}/drain")
def drain_worker(worker_id: str, use: Use, caller: Operator, dry_run: DryRun = False) -> dict[str, Any]:
    """Have a worker finish what it has in hand and take nothing more; it obeys at its next heartbeat."""
    now = use.now()
    with use.db.read() as conn:
        row = reads.worker(conn, worker_id)
    if row is None:
        raise NotFound("worker", worker_id)
    if not dry_run:
        with use.db.write() as conn:
            conn.execute(update(_WORKERS).where(_WORKERS.c.id == worker_id).values(wanted="drain"))
            record(conn, caller, now, "worker.drain", worker_id)
    return {**worker_document(row, now, use.settings.heartbeat_s), "wanted": "drain"}
