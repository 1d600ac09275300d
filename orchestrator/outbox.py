"""Telling others that a job ended: events are rows first, and are sent with back-off by a step of their own.

A slow or dead receiver delays nobody: the rows were written with the state they tell of, messages go out in
threads, and an event that cannot be sent waits longer each time until it is given up.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import orjson
import structlog
from sqlalchemy import Connection

from orchestrator.webhooks import Sender, allowed_addresses, signed_headers
from reasoning.errors import BadInput
from storage import outbox
from storage.database import Database
from storage.settings import Settings

log = structlog.get_logger()

AT_ONCE = 16
THREADS = 8
HOLD_S = 60.0
"""How long a delivery in hand is nobody else's; longer than a message may take."""
BACK_OFF_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 18000.0, 36000.0, 72000.0)
"""Pauses between attempts; about a day and a half in all, after which the event is given up."""
GONE = 410
"""The status by which a receiver says that it wants no more of them."""


def announce(conn: Connection, job: Any, status: str, now: float) -> None:
    """Note that a job ended, for the address that its submission names; in the transaction that ends it."""
    webhook = (job.options or {}).get("webhook")
    if not webhook:
        return
    kind = f"{'batch' if job.source == 'batch' else 'job'}.{status}"
    event_id = f"evt_{job.id}_{int(now * 1000):x}"  # a job that is retried ends again, as another event
    body = {"id": event_id, "object": "event", "type": kind, "created_at": int(now), "data": {"id": job.id}}
    outbox.add(
        conn,
        event_id=event_id,
        project_id=job.project_id,
        subject=job.id,
        type=kind,
        url=webhook["url"],
        secret=webhook.get("secret"),
        body=body,
        now=now,
    )


class Courier:
    """Sends what is due. One per orchestrator process."""

    def __init__(
        self, db: Database, settings: Settings, now: Callable[[], float], sender: Sender | None = None
    ) -> None:
        self._db = db
        self._settings = settings
        self._now = now
        allowed = allowed_addresses(private=settings.webhook_private, loopback=settings.loopback)
        self._sender = sender or Sender(allowed)

    def deliver_due(self) -> int:
        """Try every delivery whose time has come; how many were tried. Raises Transient when the database is away."""
        tried = 0
        while True:
            with self._db.write() as conn:
                rows = outbox.take_due(conn, self._now(), AT_ONCE, hold_s=HOLD_S)
            if not rows:
                return tried
            with ThreadPoolExecutor(THREADS, thread_name_prefix="webhooks") as pool:
                for row, error in zip(rows, pool.map(self._send, rows), strict=True):
                    self._settle(row, error)
            tried += len(rows)

    def close(self) -> None:
        """Give the connections back."""
        self._sender.close()

    def _send(self, row: Any) -> str | None:
        """None when the message arrived, else why not."""
        try:
            body = orjson.dumps(row.body)
            headers = signed_headers(row.event_id, int(self._now()), body, self._secret(row))
            status = self._sender.post(row.url, body, headers)
        except (BadInput, OSError, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            return f"{type(error).__name__}: {error}"[:500]
        return None if 200 <= status < 300 else f"HTTP {status}"

    def _secret(self, row: Any) -> str | None:
        if row.secret is None and row.url == self._settings.webhook_url and self._settings.webhook_secret:
            return self._settings.webhook_secret.get_secret_value()
        secret: str | None = row.secret
        return secret

    def _settle(self, row: Any, error: str | None) -> None:
        gives_up = error == f"HTTP {GONE}" or row.attempts >= len(BACK_OFF_S)
        now = self._now()
        with self._db.write() as conn:
            if error is None or gives_up:
                outbox.settle(conn, row.id, now, delivered=error is None, error=error)
            else:
                outbox.postpone(conn, row.id, now + BACK_OFF_S[row.attempts], error)
        if error is not None:
            log.warning(
                "A webhook message did not arrive.",
                action="webhook.given_up" if gives_up else "webhook.later",
                event_id=row.event_id,
                subject=row.subject,
                attempts=row.attempts + 1,
                error=error,
            )
