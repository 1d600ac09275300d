"""The row of a worker whose model is still loading: jobs that wait for it can tell that it comes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from types import FrameType

from reasoning.errors import Transient
from storage import fleet
from storage.database import open_database
from storage.settings import Settings
from workers.periodic import Periodic

STOPPED_BY_SIGNAL = 128


@contextmanager
def starting(settings: Settings, owner: str, model: str) -> Iterator[None]:
    """Keep a `starting` row alive while the block runs; it goes if the block fails or SIGTERM comes.

    Raises:
        Transient: the database is away.
    """
    database = open_database(settings.effective_database_url, pool_size=1)
    worker = fleet.NewWorker(owner, model, {}, 0, version("stagebeam"))

    def beat() -> None:
        with database.write() as conn:
            # What people want of it is obeyed once there is something that can be drained.
            if fleet.beat(conn, owner, time.time(), (), {}) is None:
                fleet.enroll(conn, worker, time.time())

    try:
        beat()
        before = signal.signal(signal.SIGTERM, _give_up)
        beating = Periodic("starting", settings.heartbeat_s, beat)
        try:
            yield
        except BaseException:
            beating.close()
            with suppress(Transient), database.write() as conn:
                fleet.withdraw(conn, owner)
            raise
        finally:
            beating.close()
            signal.signal(signal.SIGTERM, before)
    finally:
        database.close()


def _give_up(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(STOPPED_BY_SIGNAL + number)
