"""What the broker holds: messages that wait, and messages that a worker has taken and not yet confirmed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from orchestrator.service import broker_may_be_away, queue_depth
from reasoning.errors import Transient

KEPT_S = 2.0
KEPT_WRONG_S = 15.0
"""A broker that is away is not asked again at once: finding out may take seconds."""
TIMEOUT_S = 2.0
SECOND_TRY_S = 0.1
"""After a first try to connect that failed; kombu's own two seconds would be the page's."""


@dataclass(frozen=True, slots=True)
class Depths:
    """One look. When it failed, `problem` says why and the numbers are those last seen."""

    at: float
    waiting: dict[str, int] = field(default_factory=dict)
    """Messages by model."""
    reserved: int | None = None
    """Messages taken and not confirmed, over all queues."""
    problem: str | None = None


class Broker:
    """Looks at the broker at most every `KEPT_S`, however many ask."""

    def __init__(self, app: Celery | None) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._last: Depths | None = None
        self._looking = False
        """Whether a look is under way beside the pages."""

    def look(self, models: Sequence[str], now: float) -> Depths:
        """The depths; a look that failed is told as such and never as zero.

        Only the first look at a broker that is away is waited for; later ones happen beside the page.
        """
        with self._lock:
            last = self._last
            if last is None or (last.problem is None and not 0 <= now - last.at < KEPT_S):
                self._last = self._look(models, now)
                return self._last
            if last.problem is not None and not 0 <= now - last.at < KEPT_WRONG_S and not self._looking:
                self._looking = True
                threading.Thread(target=self._look_again, args=(tuple(models), now), daemon=True).start()
            return last

    def _look_again(self, models: Sequence[str], now: float) -> None:
        try:
            self._last = self._look(models, now)
        finally:
            self._looking = False

    def _look(self, models: Sequence[str], now: float) -> Depths:
        if self._app is None:
            return Depths(now, problem="this process has no broker")
        try:
            reserved = _reserved(self._app)  # first: it finds out soon whether the broker is there
            waiting = {model: queue_depth(self._app, model) for model in models}
            return Depths(now, waiting, reserved)
        except Transient as error:
            known = self._last or Depths(now)
            return Depths(now, known.waiting, known.reserved, str(error))


def _reserved(app: Celery) -> int | None:
    """Only the Redis transport keeps a list of them. Raises Transient when the broker is away."""
    with broker_may_be_away(), app.connection_for_read(connect_timeout=TIMEOUT_S) as connection:
        connection.ensure_connection(max_retries=1, interval_start=SECOND_TRY_S)
        channel: Any = connection.channel()
        return int(channel.client.hlen(channel.unacked_key)) if hasattr(channel, "unacked_key") else None
