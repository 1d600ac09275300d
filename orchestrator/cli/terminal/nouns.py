"""The Typer applications that a noun's file makes: all of one appearance."""

from __future__ import annotations

from collections.abc import Callable

import typer
from typer.core import TyperGroup

_CONTEXT = {"help_option_names": ["-h", "--help"]}


def verbs(
    summary: str, group: type[TyperGroup] | None = None, callback: Callable[..., None] | None = None
) -> typer.Typer:
    """A noun with verbs, such as `stagebeam job list`.

    `group` is a class that finds its verbs in its own way, `callback` takes the options before the verb.
    """
    app = _plain(summary, group)
    app.callback()(callback or _nothing_by_itself)  # without one Typer drops the verb of a noun that has only one
    return app


def single(summary: str = "", *, with_verbs: bool = False) -> typer.Typer:
    """A noun that runs by itself, such as `stagebeam api`; `with_verbs`, such as `stagebeam worker`, also has verbs."""
    return _plain(summary, invoke_without_command=with_verbs)


def _plain(summary: str, group: type[TyperGroup] | None = None, *, invoke_without_command: bool = False) -> typer.Typer:
    return typer.Typer(
        cls=group,
        help=summary or None,
        no_args_is_help=not invoke_without_command,
        invoke_without_command=invoke_without_command,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_CONTEXT,
    )


def _nothing_by_itself() -> None:
    return
