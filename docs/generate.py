"""Writes `commands.md` and `settings.md` from the code, so that neither can say what is not so: `make docs`."""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from orchestrator.cli import Nouns
from orchestrator.cli.terminal.nouns import verbs
from storage import settings
from storage.settings import PREFIX, Settings

HERE = Path(__file__).parent

_ABOUT_COMMANDS = """\
Data goes to stdout, progress and logs to stderr; `--json` gives one document for a thing and one line each for lists.
Exit codes: 0 ok, 1 some queries failed, 2 bad usage or input, 3 not found, 4 refused, 5 server unreachable,
130 interrupted.
"""

_ABOUT_SERVER = """\
All but `demo`, `up`, `db`, `key`, `prepare`, `settings`, `doctor` and the services speak to the JSON API that
`STAGEBEAM_URL` names (default `http://127.0.0.1:8000`), with the key in `STAGEBEAM_API_KEY`.
"""

_ABOUT_SETTINGS = """\
Read once from the environment when a process starts. An unknown variable with the prefix, or an unsafe value, refuses
to start and names the nearest valid one. `stagebeam settings show` prints what is in force.
"""


def commands() -> str:
    """The help of every command."""
    group: Any = get_command(verbs("", group=Nouns))
    parts = ["# Commands\n", _ABOUT_COMMANDS, _ABOUT_SERVER]
    with typer.Context(group, info_name="stagebeam") as root:
        for name in group.list_commands(root):
            parts += _sections(group.get_command(root, name), f"stagebeam {name}", root)
    return "\n".join(parts)


def settings_table() -> str:
    """Every setting with its default and what it means."""
    said = dict(_docstrings())
    parts = ["# Settings\n", _ABOUT_SETTINGS, "| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "" if default in ("", None, []) else f"`{default}`"
        parts.append(f"| `{PREFIX}{name.upper()}` | {shown} | {said[name]} |")
    return "\n".join(parts) + "\n"


def _sections(command: Any, path: str, parent: Any) -> Iterator[str]:
    with typer.Context(command, info_name=path.rpartition(" ")[2], parent=parent) as context:
        context.max_content_width = context.terminal_width = 110
        lines = command.get_help(context).splitlines()
        yield f"## {path}\n\n```\n" + "\n".join(line.rstrip() for line in lines) + "\n```\n"
        for name in getattr(command, "list_commands", lambda _: [])(context):
            yield from _sections(command.get_command(context, name), f"{path} {name}", context)


def _docstrings() -> Iterator[tuple[str, str]]:
    """The text below each field, which Python itself does not keep."""
    tree = ast.parse(inspect.getsource(settings))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    for field, text in itertools.pairwise(body):
        is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            yield field.target.id, " ".join(str(text.value.value).split()).replace("|", "\\|")  # type: ignore[attr-defined]


PAGES = {"commands.md": commands, "settings.md": settings_table}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
