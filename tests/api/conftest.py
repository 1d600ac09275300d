from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from orchestrator.api.app import make_api
from orchestrator.intake.ingest import ingest
from storage.access import create_key, create_project
from storage.database import Database
from storage.objects import open_objects
from storage.settings import Settings
from tests.orchestrator.driving import Stack
from workers.app import make_app


@dataclass
class Server:
    """The API over a database of its own, with the rest of the system in this process, stepped by hand."""

    http: TestClient
    stack: Stack
    settings: Settings

    def submit(self, count: int = 3, **body: Any) -> str:
        """A job of `count` lines, validated and not yet run."""
        return self.submit_lines([line(f"q{i}") for i in range(count)], **body)

    def submit_lines(self, lines: list[dict[str, Any]], **body: Any) -> str:
        answer = self.http.post("/api/jobs", json={"lines": lines, "model": "scripted", **body})
        assert answer.status_code == 200, answer.text
        job_id = str(answer.json()["id"])
        ingest(self.stack.db, self.stack.objects, self.settings, job_id, time.time)
        return job_id

    def run(self, job_id: str) -> None:
        self.stack.run(job_id)

    def key(self, project: str = "default", role: str = "operator") -> dict[str, str]:
        """Headers of a fresh key."""
        with self.stack.db.write() as conn:
            create_project(conn, project, project, time.time())
            token = create_key(conn, project_id=project, name="test", role=role, now=time.time()).token
        return {"authorization": f"Bearer {token}"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, broker_url="redis://127.0.0.1:1/0", max_line_bytes=4096, max_image_bytes=4096)


@pytest.fixture
def server(database: Database, settings: Settings) -> Iterator[Server]:
    """On SQLite and Postgres in turn."""
    objects = open_objects(settings)
    api = make_api(settings, database, objects, make_app(settings))
    with TestClient(api, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as http:
        yield Server(http, Stack(database, objects, now=time.time()), settings)


def png(color: str = "red", size: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), color).save(out, "PNG")
    return out.getvalue()


def line(custom_id: str, **fields: Any) -> dict[str, Any]:
    """A good input line."""
    image = "data:image/png;base64," + base64.b64encode(png()).decode()
    return {"custom_id": custom_id, "question": f"What is {custom_id}?", "images": [image], **fields}


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
