"""`stagebeam scheduler`: the service that decides, starts and finishes slots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.terminal.nouns import single

if TYPE_CHECKING:
    from orchestrator.schedules.process import Scheduler
    from storage.settings import Settings

app = single()


@app.command()
def scheduler(
    definitions: Annotated[Path | None, typer.Option(help="YAML of datasets and schedules to apply first.")] = None,
) -> None:
    """Fire the slots of all schedules until told to stop. Any number may run."""
    from orchestrator.cli.terminal.door import service_settings
    from orchestrator.cli.terminal.signals import until_told_to_stop

    settings = service_settings("scheduler", schedules_file=definitions)
    made = _make(settings)
    if settings.schedules_file is not None:
        _apply(settings, made)
    with until_told_to_stop() as told:
        made.stop = told
        made.run()
    made.db.close()


def _make(settings: Settings) -> Scheduler:
    import os
    import secrets
    import socket
    import time

    from orchestrator.models import served_model
    from orchestrator.schedules.finish import Finisher
    from orchestrator.schedules.process import Scheduler
    from orchestrator.schedules.sources import SourceReader
    from orchestrator.schedules.start import Starter
    from orchestrator.service import new_id
    from storage import schema
    from storage.database import open_database
    from storage.objects import open_objects

    schema.check(settings.effective_database_url)
    db, objects = open_database(settings.effective_database_url), open_objects(settings)
    starter = Starter(
        db=db,
        objects=objects,
        settings=settings,
        open_source=SourceReader(objects, settings),
        clock=time.time,
        new_id=new_id,
        owner=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
        default_model=served_model(settings.model),
    )
    return Scheduler(db, objects, starter, Finisher(db, objects, time.time, _agrees), time.time)


def _agrees(answer: str, known: str, choices: Sequence[str]) -> bool:
    from evaluation.extract import Expected, agrees

    return agrees(answer, Expected(known, tuple(choices)))


def _apply(settings: Settings, made: Scheduler) -> None:
    import structlog

    from orchestrator.schedules.define import Author
    from orchestrator.schedules.definitions import apply_definitions, read_definitions
    from orchestrator.service import new_id
    from storage.access import DEFAULT_PROJECT

    assert settings.schedules_file is not None  # noqa: S101 - the caller has looked
    path = settings.schedules_file
    data = read_definitions(path)
    author = Author(DEFAULT_PROJECT, f"file:{path.name}", path.name)
    with made.db.write() as conn:
        done = apply_definitions(conn, data, author, made.clock(), new_id)
    log = structlog.get_logger()
    for entry in done:
        log.info("A definition was applied.", action=f"definition.{entry.outcome}", **entry.to_json())
