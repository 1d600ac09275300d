"""Pages about the system itself: who did what, and with which settings it runs."""

from __future__ import annotations

from pydantic import SecretStr
from starlette.responses import Response

from orchestrator.web.jobs import turn
from orchestrator.web.pages import Ask
from storage import overview
from storage.settings import PREFIX, Settings

PAGE = 100


def audit(ask: Ask) -> Response:
    """The record of what people did, newest first."""
    before = ask.query.get("before", "")
    before_id = int(before) if before.isdigit() and len(before) < 18 else None
    subject = ask.query.get("subject") or None
    with ask.use.db.read() as conn:
        rows = overview.audit_page(conn, ask.viewer.project_id, limit=PAGE, before_id=before_id, subject=subject)
    shown, more, _ = turn(rows, PAGE, after=before_id, before=None)
    return ask.page("audit.html", entries=shown, subject=subject, older=shown[-1].id if more else None)


def settings(ask: Ask) -> Response:
    """Effective settings; secrets are named, never shown."""
    found = []
    for name in Settings.model_fields:
        value = getattr(ask.use.settings, name)
        text = "(set, hidden)" if isinstance(value, SecretStr) else "" if value is None else str(value)
        changed = value != Settings.model_fields[name].get_default(call_default_factory=True)
        found.append((f"{PREFIX}{name.upper()}", _without_password(name, text), changed))
    return ask.page("settings.html", settings=found)


def _without_password(name: str, text: str) -> str:
    """A URL with its password left out."""
    if not name.endswith("_url") or "@" not in text:
        return text
    scheme, _, rest = text.partition("://")
    return f"{scheme}://(hidden)@{rest.rpartition('@')[2]}"
