"""The database of the settings, for commands that work on it and not over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from storage.database import Database
    from storage.settings import Settings

DataFolder = Annotated[
    Path | None, typer.Option("--data", help="Data folder of `stagebeam up`.  [default: data]", metavar="FOLDER")
]


@contextmanager
def open_own(data: Path | None = None) -> Iterator[Database]:
    """The database, its schema checked; `data` is the folder of an embedded one.

    Raises:
        BadInput: there is none, or it needs `stagebeam db upgrade`.
    """
    from orchestrator.cli.terminal.door import settings_with
    from storage import schema
    from storage.database import open_database

    settings = settings_with(data_dir=data)
    _refuse_missing(settings)
    url = settings.effective_database_url
    schema.check(url)
    db = open_database(url, pool_size=1)
    try:
        yield db
    finally:
        db.close()


def _refuse_missing(settings: Settings) -> None:
    # SQLite would make an empty file where there is none.
    from reasoning.errors import BadInput

    path = Path(settings.effective_database_url.removeprefix("sqlite:///"))
    if settings.database_url or path.exists():
        return
    raise BadInput(
        f"there is no database in {path.parent}; name the folder that `stagebeam up` keeps its data in with --data "
        "(or STAGEBEAM_DATA_DIR), or the database of your services with STAGEBEAM_DATABASE_URL",
        code="no_database",
        field="STAGEBEAM_DATA_DIR",
    )
