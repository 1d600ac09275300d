"""The Celery app: JSON, late acknowledgement, threads pool, queues on the default exchange. Publisher and worker alike.

The options must be equal in every process on one broker: of two visibility timeouts the shorter one wins.
"""

from __future__ import annotations

import gc

from celery import Celery
from kombu import Exchange, Queue

from reasoning.errors import BadInput
from storage.settings import Settings
from workers.publish import Publisher

SOCKET_TIMEOUT_S = 10.0
"""Above it a broker that does not reply counts as away; longer than the second for which BRPOP blocks."""


COLLECT_AFTER = (10_000, 10, 10)
"""Thresholds of Python's cyclic collector: with its own a fifth of a busy orchestrator's time went into looking
through objects that live as long as their query, and cycles are few here."""


def make_app(settings: Settings) -> Celery:
    """The app of these settings; connects to nothing yet.

    Raises:
        BadInput: no broker is set (the embedded stack sets its own).
    """
    if not settings.broker_url:
        raise BadInput(
            "no broker is set; set STAGEBEAM_BROKER_URL to redis://HOST:PORT/0, or start everything with "
            "`stagebeam up`, which brings its own",
            code="missing_setting",
            field="STAGEBEAM_BROKER_URL",
        )
    app = Celery("stagebeam", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        task_ignore_result=True,  # outcomes are rows
        task_acks_late=True,
        task_acks_on_failure=True,  # the rows bring the work back; a message never has to
        task_acks_on_timeout=True,
        task_reject_on_worker_lost=False,
        task_create_missing_queues=False,
        task_default_exchange="",
        task_default_queue="stagebeam.none",
        worker_pool="threads",
        worker_prefetch_multiplier=1,
        worker_disable_rate_limits=True,
        worker_enable_remote_control=False,  # drain and cancel are rows
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_detect_quorum_queues=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_heartbeat=0,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=transport_options(settings),
    )
    app.publisher = Publisher(app)
    return app


def transport_options(settings: Settings) -> dict[str, object]:
    """Options of the Redis transport; harmless for the others."""
    return {
        "visibility_timeout": settings.visibility_timeout_s,
        "unacked_restore_interval": max(1.0, settings.visibility_timeout_s / 12),
        "unacked_restore_throttle": 1,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": SOCKET_TIMEOUT_S,
        "socket_keepalive": True,
        "queue_order_strategy": "priority",  # the first queue named is served first
    }


def declare_queues(app: Celery, names: list[str], *, acknowledge: bool = True) -> None:
    """Make the queues known to a consumer. On the default exchange a queue needs no binding kept in the broker.

    Without `acknowledge` a message is forgotten as it is handed over, which saves two round trips each.
    """
    for name in names:
        app.amqp.queues.add(Queue(name, Exchange(""), routing_key=name, no_ack=not acknowledge))


def start_serving(app: Celery) -> None:
    """Prepare a process that will handle messages for long: what is made once is made before the first message.

    What start-up left (libraries, the model's objects) lives as long as the process: the cyclic collector never
    looks at it again, and seldom at the rest, which is freed by reference counts.
    """
    app.backend  # noqa: B018 - Celery reads the metadata of all packages for it
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
