"""Sending wake-ups cheaply: one kept connection, one pipeline for many messages, never a wait without end."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from celery import Celery
from kombu.exceptions import KombuError, OperationalError

from reasoning.errors import Transient
from reasoning.records import CallKind
from workers import messages

ATTEMPTS = 2
"""A kept connection may have died unnoticed; the second attempt is made on a new one."""

QUERIES_PER_MESSAGE = 256
"""Queries that one `advance` message names at most, so that several orchestrators share a burst."""


@dataclass(frozen=True, slots=True)
class Wakeup:
    """One message: the task, its arguments, the queue and the priority (0 is the most urgent)."""

    task: str
    arguments: dict[str, Any]
    queue: str
    priority: int


class Publisher:
    """Keeps one connection to the broker. Thread-safe."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._connection: Any = None
        self._producer: Any = None

    def send(self, wakeups: Iterable[Wakeup]) -> None:
        """Send all, in one round trip where the transport can. A second copy may arrive after a broken connection.

        Raises:
            Transient: the broker is away. Nothing is lost: the rows are sent again later.
        """
        wanted = list(wakeups)
        if not wanted:
            return
        with self._lock:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    self._publish(wanted)
                    return
                except (OSError, KombuError, OperationalError, *self._broker_errors()) as error:
                    self._drop()
                    if attempt == ATTEMPTS:
                        raise Transient(f"the broker is away ({error}); the messages are sent again later") from error

    def close(self) -> None:
        """Give the connection back; the next `send` opens another."""
        with self._lock:
            self._drop()

    def _publish(self, wakeups: Sequence[Wakeup]) -> None:
        if self._producer is None:
            self._connection = self._app.connection_for_write()
            # Left to itself, kombu pauses for seconds between two attempts, or tries for ever.
            self._connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            self._producer = self._app.amqp.Producer(self._connection.channel(), auto_declare=False)
        with self._producer.batch():
            for wakeup in wakeups:
                self._put(wakeup)

    def _put(self, wakeup: Wakeup) -> None:
        message = self._app.amqp.as_task_v2(
            str(uuid4()), wakeup.task, kwargs=wakeup.arguments, argsrepr="", kwargsrepr="", ignore_result=True
        )
        self._producer.publish(
            message.body,
            exchange="",
            routing_key=wakeup.queue,
            priority=wakeup.priority,
            headers=message.headers,
            serializer="json",
            **message.properties,
        )

    def _broker_errors(self) -> tuple[type[Exception], ...]:
        return tuple(self._app.connection_for_write().connection_errors)

    def _drop(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.collapse() if hasattr(connection, "collapse") else connection.close()


def send_calls(
    app: Celery,
    kind: str,
    model: str,
    call_ids: Sequence[int],
    priority: str = "batch",
    worker: str | None = None,
) -> None:
    """Wake a worker for calls of one kind and model, in one message.

    `worker` is the id of the worker that should have them because it holds their image and prefix; without
    it any worker of the model takes them. `priority` is the job's word.

    Raises:
        Transient: the broker is away.
    """
    app.publisher.send([calls_wakeup(kind, model, call_ids, priority, worker)])


def calls_wakeup(
    kind: str, model: str, call_ids: Sequence[int], priority: str = "batch", worker: str | None = None
) -> Wakeup:
    """The message of `send_calls`, for `Publisher.send` with many at once."""
    task = messages.GENERATE if kind == CallKind.GENERATE else messages.JUDGE
    queue = messages.direct_queue(worker) if worker else messages.calls_queue(model)
    return Wakeup(task, {"call_ids": list(call_ids)}, queue, messages.PRIORITIES[priority])


def send_advance(app: Celery, query_ids: Iterable[int]) -> None:
    """Have the orchestrator plan the queries again.

    Raises:
        Transient: the broker is away.
    """
    app.publisher.send(advance_wakeups(query_ids))


def advance_wakeups(query_ids: Iterable[int]) -> list[Wakeup]:
    """The messages of `send_advance`; none for no query."""
    ids = list(query_ids)
    parts = [ids[start : start + QUERIES_PER_MESSAGE] for start in range(0, len(ids), QUERIES_PER_MESSAGE)]
    return [Wakeup(messages.ADVANCE, {"query_ids": part}, messages.ADVANCE_QUEUE, 0) for part in parts]
