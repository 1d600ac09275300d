from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import redis

from tests.services.processes import children
from tests.waiting import wait_until


def test_redis_is_empty_for_each_test_and_answers(redis_url: str):
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_redis_is_empty_again(redis_url: str):
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_waiting_gives_what_was_seen_or_tells_it():
    values = iter([0, None, "there"])
    assert wait_until(lambda: next(values), 5) == "there"
    with pytest.raises(AssertionError, match=r"three workers within 0\.05 s; last seen: 0"):
        wait_until(lambda: 0, 0.05, what="three workers")

    def broken() -> Any:
        raise ConnectionRefusedError

    with pytest.raises(AssertionError) as caught:
        wait_until(broken, 0.05)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_a_child_that_runs_on_is_seen():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in children()
    finally:
        child.communicate()
    assert child.pid not in children()
