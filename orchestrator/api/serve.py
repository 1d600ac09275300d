"""The API process: stores opened, schema checked, then served until a signal."""

from __future__ import annotations

import structlog
import uvicorn

from orchestrator.api.app import make_api
from orchestrator.exposure import refuse_unsafe
from storage import schema
from storage.database import open_database
from storage.objects import open_objects
from storage.settings import Settings
from workers.app import make_app

log = structlog.get_logger()

DRAIN_S = 10
"""How long open downloads may go on after a signal to stop."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        BadInput: a setting is unsafe or wrong, or the database needs `stagebeam db upgrade`.
    """
    refuse_unsafe(settings)
    schema.check(settings.effective_database_url)
    db = open_database(settings.effective_database_url)
    app = make_api(settings, db, open_objects(settings), make_app(settings))
    log.info("The API listens.", action="api.start", host=settings.host, port=settings.port)
    try:
        uvicorn.run(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_S,
        )
    finally:
        db.close()
