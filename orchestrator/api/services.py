"""What the routes need from outside, handed to the application once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

from celery import Celery
from fastapi import Depends, Request
from sqlalchemy import Connection

from orchestrator.api.documents import LOST_BEATS
from orchestrator.api.rates import Rates
from orchestrator.forecast import Forecast, forecasts
from storage.database import Database
from storage.objects import ObjectStore
from storage.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """The stores, the broker and the clock of one API process."""

    settings: Settings
    db: Database
    objects: ObjectStore
    publisher: Celery
    now: Callable[[], float] = time.time
    touched: dict[str, float] = field(default_factory=dict)
    """When this process last noted the use of a key, by key id."""
    rates: Rates = field(default_factory=Rates)
    """What this process knows of the projects' limits on requests."""

    def forecasts(self, conn: Connection, rows: Iterable[Any]) -> dict[str, Forecast]:
        """When jobs (rows with their counters) may end, by id."""
        return forecasts(conn, rows, self.now(), LOST_BEATS * self.settings.heartbeat_s)


def services(request: Request) -> Services:
    """The services of the application that serves `request`."""
    found: Services = request.app.state.services
    return found


Use = Annotated[Services, Depends(services)]
"""Parameter type of a route that reads or writes."""
