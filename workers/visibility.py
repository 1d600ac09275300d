"""Keeps the broker from delivering a message again while its task runs.

On Redis, kombu hides an unacknowledged message for the visibility timeout and then delivers it again, however
alive its consumer is. This consumer step moves the timeout of the messages in hand forward. It reaches into
kombu's Redis transport (`QoS._delivered`, `unacked_index_key`): kombu is pinned and a test holds what is used.
Were it to fail, the leases of the rows still keep the work from running twice.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from celery import bootsteps

_LOG = structlog.get_logger(__name__)

RENEWALS_PER_TIMEOUT = 4


class VisibilityRenewal(bootsteps.StartStopStep):  # type: ignore[misc]
    """Consumer step: refreshes the messages in hand four times per visibility timeout."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **_options: Any) -> None:
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Begin to renew, if the broker is one that forgets."""
        if consumer.connection.transport.driver_type != "redis":
            return
        timeout_s = consumer.app.conf.broker_transport_options["visibility_timeout"]
        self._timer = consumer.timer.call_repeatedly(timeout_s / RENEWALS_PER_TIMEOUT, self._renew, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Renew no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    shutdown = stop

    def _renew(self, consumer: Any) -> None:
        try:
            renew_visibility(consumer.task_consumer.channel, time.time())
        except Exception as error:  # a broker that is away must not end the consumer
            _LOG.warning("message visibility was not renewed", action="visibility.failed", error=str(error))


def renew_visibility(channel: Any, now: float) -> int:
    """Give every message in hand on this channel a full visibility timeout from `now`; how many there are."""
    tags = list(channel.qos._delivered)  # noqa: SLF001 - kombu has no public name for it
    if tags:
        with channel.conn_or_acquire() as client:
            # xx: a message acknowledged meanwhile must not come back.
            client.zadd(channel.unacked_index_key, dict.fromkeys(tags, now), xx=True)
    return len(tags)
