"""All routes of the wire."""

from __future__ import annotations

from orchestrator.api.openai import batches, chat, files, models

ROUTERS = (files.router, batches.router, models.router, chat.router)
