"""Whether the address to listen on is safe; asked before anything is started."""

from __future__ import annotations

from reasoning.errors import BadInput
from storage.settings import Settings

MIN_SECRET = 16
"""Characters of `STAGEBEAM_SECRET_KEY` at least: what it signs must not be guessed."""


def refuse_unsafe(settings: Settings) -> None:
    """Refuse an address that others reach unless there is a secret to sign with. Raises BadInput."""
    secret = settings.secret_key.get_secret_value() if settings.secret_key else ""
    if not settings.loopback and len(secret) < MIN_SECRET:
        message = (
            f"{settings.host} is reached from other machines: set STAGEBEAM_SECRET_KEY to {MIN_SECRET} or more random "
            "characters first (`openssl rand -hex 32`), or listen on 127.0.0.1."
        )
        raise BadInput(message, code="unsafe_setting", field="STAGEBEAM_SECRET_KEY")
