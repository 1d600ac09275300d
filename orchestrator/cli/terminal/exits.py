"""Exit codes, and the errors that carry one."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from reasoning.errors import BadInput, StagebeamError, Transient


class Exit(IntEnum):
    """What the shell is told. Scripts rely on these numbers."""

    OK = 0
    QUERIES_FAILED = 1
    BAD_INPUT = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5
    INTERRUPTED = 130


class CommandError(StagebeamError):
    """A command that cannot go on: what happened, what to do next, and the exit code.

    `details` are the records behind it, such as one per bad input line.
    """

    def __init__(
        self, message: str, *, exit_code: Exit, code: str = "", details: tuple[dict[str, Any], ...] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.code = code
        self.details = details


def as_command_error(error: StagebeamError) -> CommandError:
    """Any error of ours as one with an exit code."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, BadInput):
        record = {"line": error.line, "field": error.field, "code": error.code, "message": error.message}
        details = (record,) if error.line is not None else ()
        return CommandError(error.message, exit_code=Exit.BAD_INPUT, code=error.code, details=details)
    # A service that met a store which was away is worth starting again; one that was refused is not.
    exit_code = Exit.UNREACHABLE if isinstance(error, Transient) else Exit.REFUSED
    return CommandError(str(error), exit_code=exit_code, code=type(error).__name__)


def unusable_path(error: OSError) -> CommandError:
    """An error of the file system that names a path."""
    message = f"cannot use {error.filename}: {error.strerror}; name another path or change its permissions"
    return CommandError(message, exit_code=Exit.BAD_INPUT, code="unusable_path")
