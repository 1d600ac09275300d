"""Writing results: streamed lines to stdout or into a file that is whole or not there, and the files of a job."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from orchestrator.cli.terminal.client import Api
from orchestrator.cli.terminal.exits import CommandError, Exit
from orchestrator.cli.terminal.output import say, write
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


def fetch_files(api: Api, manifest: dict[str, Any], folder: Path) -> None:
    """Write the files that a manifest names into the folder, then the manifest.

    Raises:
        CommandError: the folder cannot be written, or a file is not what the manifest says; that one is not kept.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in manifest["files"]:
            target = folder / Path(entry["name"]).name
            api.download(f"/api/files/{quote(entry['file_id'], safe='')}/content", target)
            _verify(target, entry["sha256"])
            say(f"{entry['lines']} lines, {entry['bytes']} bytes in {target}")
        (folder / "manifest.json").write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")
    except OSError as error:
        message = f"cannot write into {folder}: {error.strerror}"
        raise CommandError(message, exit_code=Exit.BAD_INPUT, code="unwritable_file") from None


def _verify(file: Path, sha256: str) -> None:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        file.unlink()
        message = f"{file} came with SHA-256 {found}, the manifest says {sha256}; fetch it again"
        raise CommandError(message, exit_code=Exit.UNREACHABLE, code="damaged_file")


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
