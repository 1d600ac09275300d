"""The command line: `stagebeam NOUN VERB`, one file per noun.

A module of this package with a Typer application named `app` is a noun; nothing else registers it. Modules
import what they need inside their commands, so that `stagebeam --help` is instant.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from orchestrator.cli.terminal.exits import Exit, unusable_path
from orchestrator.cli.terminal.nouns import verbs
from reasoning.errors import InvariantBroken, StagebeamError, nearest

_NOT_NOUNS = {"__main__", "terminal"}


class Nouns(TyperGroup):
    """The commands found beside this file; errors of ours become one message and an exit code."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The noun that the arguments begin with. Raises a usage error that names the nearest one."""
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            ctx.fail(f"there is no command '{name}'.{nearest(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in alphabetical order."""
        return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NOT_NOUNS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The noun's command, imported when it is asked for; None when there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        app: typer.Typer = importlib.import_module(f"{__name__}.{cmd_name}").app
        command = get_command(app)
        command.name = cmd_name
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Exits with a code of `Exit`."""
        try:
            return super().invoke(ctx)
        except InvariantBroken:
            raise  # a bug: the traceback is what helps
        except StagebeamError as error:
            from orchestrator.cli.terminal.output import report

            sys.exit(report(error, as_json="--json" in sys.argv))
        except BrokenPipeError:
            sys.exit(Exit.OK)  # whoever read the output has seen enough
        except OSError as error:
            if error.filename is None:
                raise
            from orchestrator.cli.terminal.output import report

            sys.exit(report(unusable_path(error), as_json="--json" in sys.argv))
        except KeyboardInterrupt:
            sys.exit(Exit.INTERRUPTED)


_ABOUT = """Batch jobs of image questions, answered by stage-level beam search.

Data goes to stdout, progress and logs to stderr. Exit codes: 0 ok, 1 some queries failed, 2 bad usage or input,
3 not found, 4 refused, 5 server unreachable, 130 interrupted."""


def main() -> None:
    """The `stagebeam` command."""
    verbs(_ABOUT, group=Nouns, callback=_options)(prog_name="stagebeam")


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"stagebeam {version('stagebeam')}")
        raise typer.Exit


def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    return
