from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from orchestrator.api.app import make_api
from storage import bulk
from storage.access import create_key
from storage.database import Database, open_database
from storage.objects import ObjectStore, open_objects
from storage.settings import Settings
from tests.services.postgres import Postgres
from tests.web import gallery
from tests.web.filled import Filler
from workers.app import make_app

ORIGIN = "http://127.0.0.1:8000"
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}
NO_BROKER = "redis://127.0.0.1:1/0"


@dataclass
class Site:
    """The pages over a store, asked without a browser."""

    http: TestClient
    db: Database
    objects: ObjectStore
    settings: Settings

    def get(self, address: str, **options: Any) -> Any:
        return self.http.get(address, **options)

    def post(self, address: str, data: dict[str, Any] | None = None, **options: Any) -> Any:
        """As our own page sends a form; the redirect is not followed."""
        return self.http.post(address, data=data or {}, headers=SAME_ORIGIN, follow_redirects=False, **options)

    def filler(self) -> Filler:
        return Filler(self.db, self.objects, time.time() - 60)

    def key(self, role: str = "viewer") -> str:
        with self.db.write() as conn:
            return create_key(conn, project_id="default", name=f"{role} key", role=role, now=time.time()).token

    def login(self, role: str = "viewer") -> None:
        self.http.cookies.clear()
        assert self.post("/login", {"key": self.key(role)}).status_code == 303


def site_over(db: Database, objects: ObjectStore, settings: Settings) -> Site:
    api = make_api(settings, db, objects, make_app(settings))
    return Site(TestClient(api, base_url=ORIGIN, raise_server_exceptions=False), db, objects, settings)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", broker_url=NO_BROKER)


@pytest.fixture
def site(database: Database, settings: Settings) -> Iterator[Site]:
    """An empty store that this test alone uses, SQLite and Postgres in turn."""
    made = site_over(database, open_objects(settings), settings)
    with made.http:
        yield made


@dataclass
class Gallery:
    """A store with one job of every kind, for tests that only look."""

    site: Site
    jobs: dict[str, str]
    action: int
    """A bulk action on the job `labels`."""

    def ids(self, name: str) -> list[int]:
        """Ids of the queries of a job."""
        from storage import questions
        from storage.search import Terms

        with self.site.db.read() as conn:
            return [row.id for row in questions.page(conn, self.jobs[name], Terms(), limit=1000)]


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path
) -> Iterator[Gallery]:
    folder = tmp_path_factory.mktemp("gallery")
    server: Postgres | None = None
    if request.param == "sqlite":
        url = f"sqlite:///{folder}/gallery.db"
        (folder / "gallery.db").write_bytes(migrated_sqlite.read_bytes())
    else:
        server = request.getfixturevalue("postgres_server")
        assert isinstance(server, Postgres)
        name = server.create()
        url = server.url(name)
    settings = Settings(data_dir=folder / "data", broker_url=NO_BROKER)
    db = open_database(url)
    objects = open_objects(settings)
    jobs = gallery.fill(db, objects, time.time(), scale=0.12)
    about = {"action": "retry", "filter": "status:failed", "reason": "mended", "actor": "local", "status": "done"}
    with db.write() as conn:
        action = bulk.add(conn, job_id=jobs["labels"], **about, created_at=time.time())
    made = site_over(db, objects, settings)
    with made.http:
        yield Gallery(made, jobs, action)
    db.close()
    if server is not None:
        server.drop(name)
