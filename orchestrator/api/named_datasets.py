"""Named datasets: sources that schedules run over, with their column mapping, policy and row identity."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Query

from orchestrator.api.access import Operator, Viewer, record
from orchestrator.api.bodies import JsonRoute
from orchestrator.api.documents import page
from orchestrator.api.errors import NotFound
from orchestrator.api.paging import After, DryRun, Limit
from orchestrator.api.rehearse import rehearsed
from orchestrator.api.services import Services, Use
from orchestrator.schedules.define import Author, DatasetDefinition, put_dataset, refuse_managed, shown_changes
from orchestrator.schedules.documents import dataset_document
from orchestrator.schedules.sources import SourceReader, SourceSettings, check_reach
from orchestrator.service import new_id
from reasoning.errors import BadInput
from storage import datasets
from storage.access import Caller

router = APIRouter(route_class=JsonRoute, prefix="/api/datasets", tags=["datasets"])

Definition = Annotated[dict[str, Any], Body()]
SHOWN_ROWS = 20


@router.get("")
def list_datasets(use: Use, caller: Viewer, limit: Limit = 100, after: After = None) -> dict[str, Any]:
    """Named datasets of the project, by name."""
    with use.db.read() as conn:
        rows = datasets.list_page(conn, caller.project_id, after=after, limit=limit)
    return page(map(dataset_document, rows), limit=limit, cursor="name")


@router.put("/{name}")
def put(name: str, definition: Definition, use: Use, caller: Operator, dry_run: DryRun = False) -> dict[str, Any]:
    """Make a dataset or change the one of that name. A source on the server's disk must lie below its image roots,
    unless an admin asks.
    """
    wanted = DatasetDefinition.from_mapping({**definition, "name": name})
    check_reach(SourceSettings.from_mapping(wanted.source), use.settings, admin=caller.may("admin"))
    author = Author(caller.project_id, caller.key_id or "local")
    row, changes = rehearsed(use.db, lambda conn: put_dataset(conn, wanted, author, use.now(), new_id), dry_run=dry_run)
    return {**dataset_document(row), "changes": [change.to_json() for change in shown_changes(changes)]}


@router.get("/{name}")
def show(name: str, use: Use, caller: Viewer) -> dict[str, Any]:
    """One dataset and the schedules that use it."""
    row = dataset_or_404(use, caller, name)
    with use.db.read() as conn:
        return dataset_document(row, datasets.used_by(conn, row.id))


@router.get("/{name}/preview")
def preview(
    name: str, use: Use, caller: Operator, rows: Annotated[int, Query(ge=1, le=SHOWN_ROWS)] = 5
) -> dict[str, Any]:
    """The first rows as they would be asked, and what was understood of the columns."""
    row = dataset_or_404(use, caller, name)
    opened = SourceReader(use.objects, use.settings)(row, use.now(), limit=rows)
    lines = [_plain(line) for line in islice(opened.lines, rows)]
    return {"object": "dataset.preview", "columns": opened.mapping, "notes": list(opened.notes), "rows": lines}


@router.delete("/{name}")
def delete(name: str, use: Use, caller: Operator, dry_run: DryRun = False) -> dict[str, Any]:
    """Remove a dataset that no schedule uses; what its runs wrote stays."""
    row = dataset_or_404(use, caller, name)
    refuse_managed(row, "dataset")
    with use.db.write() as conn:
        users = datasets.used_by(conn, row.id)
        if users:
            raise BadInput(f"schedules use this dataset: {', '.join(users[:10])}", code="conflict", field="name")
        if not dry_run:
            datasets.remove(conn, row.id)
            record(conn, caller, use.now(), "dataset.delete", row.id)
    return {**dataset_document(row), "deleted": not dry_run}


def _plain(line: dict[str, Any]) -> Any:
    """A line as JSON; the bytes of an image are told by their number."""
    return orjson.loads(orjson.dumps(line, default=lambda value: f"({len(value)} bytes)"))


def dataset_or_404(use: Services, caller: Caller, name: str) -> Any:
    """The dataset row. Raises NotFound."""
    with use.db.read() as conn:
        row = datasets.named(conn, caller.project_id, name)
    if row is None:
        raise NotFound("dataset", name)
    return row
