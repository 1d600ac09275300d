"""The API as a real server in a thread, and clients whose every answer is checked strictly by type."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import uvicorn
from openai import OpenAI
from openai.types import Batch, FileObject
from openai.types.chat import ChatCompletion

from orchestrator.api.app import make_api
from orchestrator.intake.ingest import ingest
from storage import access
from storage.database import Database
from storage.objects import ObjectStore
from storage.settings import Settings
from tests.orchestrator.driving import Stack
from tests.services.processes import free_port
from tests.waiting import wait_until
from workers.app import make_app

ENDPOINT = "/v1/chat/completions"
TYPES: dict[str, Any] = {"batch": Batch, "file": FileObject, "chat.completion": ChatCompletion}


def check_types(response: httpx.Response) -> None:
    """An httpx hook: the client builds its models unchecked, so a wrong type would pass unseen."""
    assert response.headers["x-request-id"]
    if response.request.url.path.endswith("/content") or "json" not in response.headers.get("content-type", ""):
        return
    body = orjson.loads(response.read())
    if response.is_error:
        assert set(body["error"]) - {"details"} == {"message", "type", "param", "code"}
        assert isinstance(body["error"]["message"], str)
        assert isinstance(body["error"]["type"], str)
        return
    for item in body["data"] if body.get("object") == "list" else [body]:
        if item.get("object") in TYPES and not item.get("deleted"):
            TYPES[item["object"]].model_validate(item, strict=True)


def make_client(url: str, key: str = "anything", **options: Any) -> OpenAI:
    # Plain HTTP: loading certificates for each client would cost more than the tests.
    http = httpx.Client(event_hooks={"response": [check_types]}, timeout=30, verify=False)
    return OpenAI(base_url=f"{url}/v1", api_key=key, http_client=http, **{"max_retries": 0, **options})


@dataclass
class Wire:
    """A served API over stores that the test can reach past it; nothing runs unless the test runs it."""

    url: str
    settings: Settings
    db: Database
    objects: ObjectStore
    clients: list[OpenAI] = field(default_factory=list)

    def client(self, key: str = "anything", **options: Any) -> OpenAI:
        self.clients.append(make_client(self.url, key, **options))
        return self.clients[-1]

    def key(self, project: str = "default", role: str = "operator", **limits: int) -> str:
        """A new key of a project, which is made when it is missing."""
        with self.db.write() as conn:
            access.create_project(conn, project, project, 1.0)
            access.set_limits(conn, project, limits)
            return access.create_key(conn, project_id=project, name="test", role=role, now=1.0).token

    def ingest(self, batch_id: str) -> None:
        ingest(self.db, self.objects, self.settings, batch_id, self.stack.clock)

    def run(self, *batch_ids: str) -> None:
        """Ingest the batches and run them to their end on the scripted engine."""
        for batch_id in batch_ids:
            self.ingest(batch_id)
        self.stack.run(*batch_ids)

    @property
    def stack(self) -> Stack:
        stack = Stack(self.db, self.objects)
        # In time with the wall clock of the server, and its ids beside those the API makes.
        stack.now = time.time()
        return stack


@contextmanager
def served(settings: Settings, db: Database, objects: ObjectStore) -> Iterator[str]:
    """The URL of a real server over these stores."""
    app = make_api(settings, db, objects, make_app(settings))
    config = uvicorn.Config(app, port=settings.port, log_config=None, ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, what="the server listens")
        yield f"http://127.0.0.1:{settings.port}"
    finally:
        server.should_exit = True
        thread.join(10)


def line(number: int, **body: Any) -> dict[str, Any]:
    """A chat line."""
    messages = [{"role": "user", "content": f"What is in picture {number}?"}]
    content = {"model": "scripted", "messages": messages, **body}
    return {"custom_id": f"q-{number}", "method": "POST", "url": ENDPOINT, "body": content}


def jsonl(*lines: Any) -> bytes:
    return b"".join(item if isinstance(item, bytes) else orjson.dumps(item) + b"\n" for item in lines)


def settings_of(data_dir: Any, **values: Any) -> Settings:
    # No test here reaches the broker; an address where none listens makes sure of it.
    broker = {"broker_url": "redis://127.0.0.1:1/0"}
    return Settings(data_dir=data_dir, port=free_port(), model="scripted", **{**broker, **values})
