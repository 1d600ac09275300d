"""`/v1/models`, and which model answers for a name (sections 9.1 and 9.8)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection, select

from orchestrator.api.access import Viewer
from orchestrator.api.services import Services, Use
from orchestrator.api.submissions import served_model
from reasoning.errors import BadInput, nearest
from storage.tables import Worker

router = APIRouter(prefix="/v1/models", tags=["openai"])

OWNER = "stagebeam"
ALIVE_BEATS = 12
"""Missed heartbeats after which a worker's model is no longer listed."""

_WORKERS = Worker.__table__


class ModelNotFound(BadInput):
    """No worker serves a model of this name."""

    def __init__(self, name: str, known: list[str], field: str | None = "model") -> None:
        message = (
            f'there is no model "{name[:100]}" here.{nearest(name[:100], known)} `/v1/models` lists those there are.'
        )
        super().__init__(message, code="model_not_found", field=field)


@router.get("")
def list_models(use: Use, _caller: Viewer) -> dict[str, Any]:
    """The models that answer here: the server's own first, then those of living workers."""
    return {"object": "list", "data": [_model(name, created) for name, created in _served(use).items()]}


@router.get("/{model:path}")
def show_model(model: str, use: Use, _caller: Viewer) -> dict[str, Any]:
    """One model."""
    served = _served(use)
    if model not in served:
        raise ModelNotFound(model, list(served))
    return _model(model, served[model])


def answering(use: Services, name: str | None) -> str:
    """The model that answers for a name that a client gave: the one of that name, else the server's own.

    Raises:
        ModelNotFound: there is none of this name and `strict_models` is set.
    """
    own = served_model(use.settings.model)
    if not name or name == own:
        return own
    served = _served(use)
    if name in served:
        return name
    if use.settings.strict_models:
        raise ModelNotFound(name, list(served))
    return own


def _served(use: Services) -> dict[str, float]:
    """Model names with the time they were first seen, in seconds since the epoch."""
    found = {served_model(use.settings.model): 0.0}
    with use.db.read() as conn:
        found.update(_of_workers(conn, use.now() - ALIVE_BEATS * use.settings.heartbeat_s))
    return found


def _of_workers(conn: Connection, since: float) -> dict[str, float]:
    statement = select(_WORKERS.c.model, _WORKERS.c.started_at).where(
        _WORKERS.c.beat_at > since, _WORKERS.c.state != "stopped"
    )
    found: dict[str, float] = {}
    for row in conn.execute(statement.order_by(_WORKERS.c.started_at)):
        found.setdefault(row.model, row.started_at)
    return found


def _model(name: str, created: float) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(created), "owned_by": OWNER}
