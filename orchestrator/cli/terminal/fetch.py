"""Writing streamed result lines: to stdout as they come, or to a file that is whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from orchestrator.cli.terminal.exits import CommandError, Exit
from orchestrator.cli.terminal.output import write
from orchestrator.cli.terminal.safe import harmless_json


def write_lines(lines: Iterable[str], output: Path | None) -> int:
    """Write the lines and return how many there were.

    Raises:
        CommandError: the file cannot be written; nothing is left of it then.
    """
    if output is None:
        count = 0
        for line in lines:
            write(harmless_json(line))
            count += 1
        return count
    try:
        return _write_file(lines, output)
    except OSError as error:
        message = f"cannot write {output}: {error.strerror}"
        raise CommandError(message, exit_code=Exit.BAD_INPUT, code="unwritable_file") from None


def _write_file(lines: Iterable[str], output: Path) -> int:
    count = 0
    with tempfile.NamedTemporaryFile("wb", dir=output.parent, prefix=f".{output.name}-", delete=False) as part:
        try:
            for line in lines:
                part.write(line.encode() + b"\n")
                count += 1
        except BaseException:
            Path(part.name).unlink()
            raise
    Path(part.name).chmod(0o666 & ~_umask())
    Path(part.name).replace(output)
    return count


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
