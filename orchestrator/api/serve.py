"""The API process: stores opened, schema checked, then served until a signal."""

from __future__ import annotations

import structlog
import uvicorn

from orchestrator.api.app import make_api
from reasoning.errors import BadInput
from storage import schema
from storage.database import open_database
from storage.objects import open_objects
from storage.settings import Settings
from workers.app import make_app

log = structlog.get_logger()

DRAIN_S = 10
"""How long open downloads may go on after a signal to stop."""
MIN_SECRET = 16
"""Characters of `STAGEBEAM_SECRET_KEY` at least: what it signs must not be guessed."""


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


def refuse_unsafe(settings: Settings) -> None:
    """Refuse an address that others reach unless there is a secret to sign with. Raises BadInput."""
    secret = settings.secret_key.get_secret_value() if settings.secret_key else ""
    if not settings.loopback and len(secret) < MIN_SECRET:
        message = (
            f"{settings.host} is reached from other machines: set STAGEBEAM_SECRET_KEY to {MIN_SECRET} or more random "
            "characters first (`openssl rand -hex 32`), or listen on 127.0.0.1."
        )
        raise BadInput(message, code="unsafe_setting", field="STAGEBEAM_SECRET_KEY")
