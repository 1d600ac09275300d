"""`stagebeam doctor`: whether this machine and these settings can work, and what to do where not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.cli.terminal.nouns import single
from orchestrator.cli.terminal.output import AsJson, listing

if TYPE_CHECKING:
    from storage.settings import Settings

app = single()


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check settings, packages, device, data folder, database, broker and object store. Exit code 4 if one fails."""
    from orchestrator.cli.terminal.exits import Exit

    checks: tuple[tuple[str, Callable[[], str]], ...] = (("python", _python), ("settings", _settings))
    rows = [_checked(name, check) for name, check in checks]
    if rows[-1]["ok"]:
        from orchestrator.cli.terminal.door import settings_with

        settings = settings_with()
        rows += [_checked(name, lambda check=check: check(settings)) for name, check in _STORES]  # type: ignore[misc]
    listing(rows, ("check", "ok", "says"), as_json=as_json)
    raise typer.Exit(Exit.OK if all(row["ok"] for row in rows) else Exit.REFUSED)


def _checked(name: str, check: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"check": name, "ok": True, "says": check()}
    except Exception as error:  # every failure is a finding here
        return {"check": name, "ok": False, "says": str(error) or type(error).__name__}


def _python() -> str:
    return f"Python {sys.version.split()[0]}"


def _settings() -> str:
    from orchestrator.cli.terminal.door import settings_with

    return f"{len(settings_with().model_fields_set)} set, the others at their defaults"


def _device(settings: Settings) -> str:
    from importlib.metadata import version

    from workers.engine.model_folder import pick_device

    return f"torch {version('torch')} on {pick_device(settings.device)}"


def _model(settings: Settings) -> str:
    from pathlib import Path

    from workers.engine.registry import demo_folder

    if settings.model == "demo":
        return str(demo_folder())
    if settings.model.startswith(("/", "./")) and not Path(settings.model).is_dir():
        raise FileNotFoundError(f"there is no folder {settings.model}")
    return settings.model


def _database(settings: Settings) -> str:
    from storage import schema

    if not settings.database_url and not (settings.data_dir / "stagebeam.db").exists():
        return f"SQLite in {settings.data_dir.resolve()}, made at the first start"
    schema.check(settings.effective_database_url)
    return f"at revision {schema.newest()}"


def _broker(settings: Settings) -> str:
    if not settings.broker_url:
        from orchestrator.embedded.valkey import program

        return f"embedded: {program()}"
    from workers.app import make_app

    with make_app(settings).connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, timeout=5)
    return "answers"


def _objects(settings: Settings) -> str:
    from storage.objects import open_objects

    able = open_objects(settings).check()
    return ", ".join(f"{name}: {'yes' if value else 'no'}" for name, value in able.items()) or "answers"


_STORES: tuple[tuple[str, Callable[[Settings], str]], ...] = (
    ("device", _device),
    ("model", _model),
    ("database", _database),
    ("broker", _broker),
    ("object store", _objects),
)
