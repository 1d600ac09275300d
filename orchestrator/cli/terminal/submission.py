"""Sending an input file: local images first, each once, then the lines that name them by content hash."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestrator.cli.terminal.client import Api
from orchestrator.cli.terminal.exits import CommandError, Exit
from orchestrator.cli.terminal.output import say
from reasoning.errors import nearest

if TYPE_CHECKING:
    from orchestrator.intake.pack import Has, Upload

READ_BYTES = 2**20
ASKED_AT_ONCE = 1000
"""Hashes of one question at most, by the API."""


def send_file(api: Api, name: str, image_roots: Sequence[Path]) -> str:
    """Upload the input `name` (`-` is stdin) and its local images; returns the id of the file on the server.

    Raises:
        CommandError: the file cannot be read, or the server refuses something.
        BadInput: the input as a whole cannot be read.
    """
    from orchestrator.intake.pack import pack

    folder = Path.cwd() if name == "-" else Path(name).parent
    with _opened(name) as source:
        chunks = iter(lambda: source.read(READ_BYTES), b"")
        shown = "stdin.jsonl" if name == "-" else Path(name).name
        return send_pieces(api, shown, lambda has, upload: pack(chunks, [folder, *image_roots], has, upload))


def send_pieces(api: Api, name: str, pieces: Callable[[Has, Upload], Iterable[bytes]]) -> str:
    """Upload an input file called `name` made of pieces, which send their images first; its id on the server.

    Raises:
        CommandError: the server refuses something.
    """
    sent = 0

    def has(hashes: Sequence[str]) -> Iterable[str]:
        missing: set[str] = set()
        for start in range(0, len(hashes), ASKED_AT_ONCE):
            part = list(hashes[start : start + ASKED_AT_ONCE])
            missing.update(api.post("/api/blobs/missing", {"sha256": part})["missing"])
        return [sha256 for sha256 in hashes if sha256 not in missing]

    def upload(sha256: str, data: bytes, _media_type: str) -> None:
        nonlocal sent
        api.put_blob(sha256, data)
        sent += 1

    with tempfile.NamedTemporaryFile(prefix="stagebeam-") as packed:
        for piece in pieces(has, upload):
            packed.write(piece)
        packed.flush()
        if sent:
            say(f"sent {sent} image{'s' if sent > 1 else ''}")
        return str(api.upload(Path(packed.name), name)["id"])


def policy_of(flags: dict[str, Any], text: str | None) -> dict[str, Any]:
    """The policy that flags and `--policy` ask for; a flag wins. Raises CommandError on text that is no JSON object."""
    import json

    try:
        base = json.loads(text) if text else {}
    except ValueError as error:
        raise CommandError(f"--policy is not JSON: {error}", exit_code=Exit.BAD_INPUT, code="invalid_policy") from None
    if not isinstance(base, dict):
        raise CommandError("--policy must be a JSON object", exit_code=Exit.BAD_INPUT, code="invalid_policy")
    return {**base, **{name: value for name, value in flags.items() if value is not None}}


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        source = Path(name).open("rb")  # noqa: SIM115 - closed below; only opening it may fail this way
    except OSError as error:
        message = f"cannot read {name}: {error.strerror}{_advice(Path(name))}"
        raise CommandError(message, exit_code=Exit.BAD_INPUT, code="unreadable_file") from None
    with source:
        yield source


def _advice(path: Path) -> str:
    """Where it was looked for, and what lies there under a similar name."""
    folder = path.parent.resolve()
    if path.exists() or not folder.is_dir():
        return ""
    return f" in {folder}.{nearest(path.name, (entry.name for entry in folder.iterdir()))}"
