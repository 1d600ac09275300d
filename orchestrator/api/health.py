"""Whether the process lives and whether it can work. No login, and nothing said but ok."""

from __future__ import annotations

from fastapi import APIRouter
from kombu.exceptions import OperationalError
from sqlalchemy import text

from orchestrator.api.services import Services, Use
from reasoning.errors import Transient

router = APIRouter(prefix="/health", tags=["health"])

BROKER_TIMEOUT_S = 2.0


@router.get("/live")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/ready")
def ready(use: Use) -> dict[str, str]:
    """Database and broker answer too; otherwise 503."""
    with use.db.read() as conn:
        conn.execute(text("SELECT 1"))
    _ask_broker(use)
    return {"status": "ok"}


def _ask_broker(use: Services) -> None:
    try:
        with use.publisher.connection_for_read(connect_timeout=BROKER_TIMEOUT_S) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=BROKER_TIMEOUT_S)
    except (OSError, OperationalError) as error:
        raise Transient(f"the broker does not answer ({type(error).__name__})") from error
