"""Messages on a real Redis: their form, their order, and a broker that is away."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from typing import Any

import pytest
import redis
from celery import Celery

from reasoning.errors import BadInput, Transient
from storage.settings import Settings
from tests.services.processes import free_port
from workers import messages, publish
from workers.app import make_app
from workers.publish import advance_wakeups, calls_wakeup, send_advance, send_calls
from workers.visibility import renew_visibility


def bodies(broker: redis.Redis, key: str) -> list[Any]:
    """Keyword arguments of the messages in a list, in the order in which they are taken."""
    raw = [json.loads(item) for item in reversed(broker.lrange(key, 0, -1))]
    assert {item["content-type"] for item in raw} <= {"application/json"}
    return [json.loads(b64decode(item["body"]))[1] for item in raw]


def test_a_message_names_calls_and_nothing_else(app: Celery, broker: redis.Redis) -> None:
    send_calls(app, "generate", "org/model:7b", [3, 1], "interactive")
    send_calls(app, "compare", "org/model:7b", [2], "interactive")
    queue = messages.calls_queue("org/model:7b")
    assert queue == "stagebeam.calls.org_model_7b"
    assert bodies(broker, queue) == [{"call_ids": [3, 1]}, {"call_ids": [2]}]
    tasks = [json.loads(item)["headers"]["task"] for item in broker.lrange(queue, 0, -1)]
    assert tasks == [messages.JUDGE, messages.GENERATE]


def test_urgent_calls_wait_in_the_list_that_is_served_first(app: Celery, broker: redis.Redis) -> None:
    app.publisher.send(calls_wakeup("generate", "m", [place], word) for place, word in enumerate(messages.PRIORITIES))
    queue = messages.calls_queue("m")
    lists = [queue, f"{queue}\x06\x166", f"{queue}\x06\x169"]
    assert [bodies(broker, key)[0]["call_ids"] for key in lists] == [[0], [1], [2]]


def test_a_call_may_go_to_one_worker(app: Celery, broker: redis.Redis) -> None:
    send_calls(app, "generate", "m", [1], "interactive", worker="w@host:1:2")
    assert bodies(broker, "stagebeam.worker.w_host_1_2") == [{"call_ids": [1]}]


def test_many_queries_are_spread_over_several_messages(app: Celery, broker: redis.Redis) -> None:
    most = publish.QUERIES_PER_MESSAGE
    send_advance(app, range(2 * most + 2))
    parts = [body["query_ids"] for body in bodies(broker, messages.ADVANCE_QUEUE)]
    assert [len(part) for part in parts] == [most, most, 2]
    assert [query_id for part in parts for query_id in part] == list(range(2 * most + 2))
    assert advance_wakeups([]) == []


def test_publishing_leaves_no_binding_behind(app: Celery, broker: redis.Redis) -> None:
    send_calls(app, "generate", "m", [1])
    assert broker.keys("_kombu.binding*") == []


def test_a_broker_that_is_away_is_told_at_once_and_found_again(broker: redis.Redis, app: Celery) -> None:
    away = make_app(Settings(broker_url=f"redis://127.0.0.1:{free_port()}/0"))
    start = time.monotonic()
    with pytest.raises(Transient, match="broker is away"):
        send_calls(away, "generate", "m", [1])
    assert time.monotonic() - start < 3
    send_calls(app, "generate", "m", [1])
    for client in broker.client_list():
        if client["id"] != str(broker.client_id()):
            broker.client_kill_filter(_id=client["id"])
    send_calls(app, "generate", "m", [2])
    assert [body["call_ids"] for body in bodies(broker, messages.calls_queue("m") + "\x06\x166")] == [[1], [2]]


def test_without_a_broker_the_app_says_what_to_set() -> None:
    with pytest.raises(BadInput, match="STAGEBEAM_BROKER_URL"):
        make_app(Settings())


def test_visibility_is_renewed_for_messages_in_hand_alone(app: Celery, broker: redis.Redis) -> None:
    """Pins what is used of kombu's Redis transport: `QoS._delivered`, `unacked_index_key`, scores in seconds."""
    for call_id in (1, 2):
        send_calls(app, "generate", "m", [call_id], "interactive")
    with app.connection_for_read() as connection:
        channel = connection.channel()
        queue = messages.calls_queue("m")
        first, second = (channel.basic_get(queue) for _ in range(2))
        before = dict(broker.zrange("unacked_index", 0, -1, withscores=True))
        assert set(channel.qos._delivered) == {first.delivery_tag, second.delivery_tag}
        assert all(abs(score - time.time()) < 60 for score in before.values())
        assert renew_visibility(channel, 9e9) == 2
        assert {score for _, score in broker.zrange("unacked_index", 0, -1, withscores=True)} == {9e9}
        first.ack()
        # One that is acknowledged between the look and the renewal must not come back.
        channel.qos._delivered[first.delivery_tag] = first
        renew_visibility(channel, 9.1e9)
        assert broker.zrange("unacked_index", 0, -1, withscores=True) == [(second.delivery_tag.encode(), 9.1e9)]
        del channel.qos._delivered[first.delivery_tag]
        second.ack()
    assert broker.zcard("unacked_index") == 0
