"""The application: services, guard, errors and routers put together."""

from __future__ import annotations

from importlib.metadata import version

from celery import Celery
from fastapi import FastAPI

from orchestrator.api import (
    blobs,
    clones,
    datasets,
    errors,
    exports,
    files,
    health,
    jobs,
    metrics,
    named_datasets,
    queries,
    results,
    schedules,
    slots,
    submissions,
    workers,
)
from orchestrator.api.guard import Guard
from orchestrator.api.openai import routes as openai_routes
from orchestrator.api.services import Services
from orchestrator.web.routes import make_pages
from storage.database import Database
from storage.objects import ObjectStore
from storage.settings import Settings


def make_api(settings: Settings, db: Database, objects: ObjectStore, publisher: Celery) -> FastAPI:
    """The API over these stores. It opens nothing and closes nothing."""
    app = FastAPI(
        title="stagebeam",
        version=version("stagebeam"),
        description="Batch jobs of image questions, answered by stage-level beam search.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # the stock pages load scripts from other sites
        redoc_url=None,
    )
    app.state.services = Services(settings, db, objects, publisher)
    subjects = (health, files, blobs, datasets, submissions, jobs, clones, results, exports, queries, workers, metrics)
    for subject in (*subjects, named_datasets, schedules, slots):
        app.include_router(subject.router)
    for router in openai_routes.ROUTERS:
        app.include_router(router)
    app.router.routes.extend(make_pages(app.state.services))
    errors.install(app)
    app.add_middleware(Guard, settings=settings)
    return app
