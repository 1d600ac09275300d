"""What a person sends with the submit form, turned into one input file by the code that the command line uses.

Lines or a table, images that the lines name, a folder of images with one question for all, or a named dataset.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from starlette.datastructures import FormData, UploadFile

from orchestrator.api.files import COPY_BYTES, Received, store
from orchestrator.api.services import Services
from orchestrator.datasets.source import detect, open_source
from orchestrator.datasets.spec import Line, OpenFile, Source, SourceSpec
from orchestrator.intake.keeper import BlobKeeper
from orchestrator.schedules.snapshot import snapshot
from orchestrator.schedules.sources import Opened, SourceReader
from reasoning.errors import BadInput
from storage import datasets
from storage.access import Caller

MAX_IMAGES = 250
"""Images of one form: each may lie in memory for a while."""
MAX_ROWS = 20_000
"""Rows of a dataset that a page waits for; a schedule takes any number."""
MAX_NAME = 120


@dataclass(frozen=True, slots=True)
class Taken:
    """The stored input file, and what was understood on the way to it."""

    file_id: str
    understood: str = ""
    """A sentence part about columns and images; empty where the lines were taken as they are."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """The parts of a form that hold input."""

    lines: IO[bytes] | None
    name: str
    images: Sequence[UploadFile]
    question: str | None


def take(use: Services, caller: Caller, form: FormData, stored: Any | None) -> Taken | None:
    """The input file of a form; None when it holds none, so that an earlier one stays.

    `stored` is the row of the file that was chosen before: images that come later are meant for its lines.

    Raises:
        BadInput: the table, the images or the dataset cannot be used as a whole.
    """
    name = _text(form, "dataset")
    if name:
        return _from_dataset(use, caller, name)
    with ExitStack() as stack:
        sent = _sent(form)
        if sent.lines is None and sent.images and stored is not None:
            sent = replace(sent, lines=stack.enter_context(use.objects.open(stored.object_key)), name=stored.filename)
        if sent.lines is None and not sent.images:
            return None
        if sent.lines is not None and not sent.images and _as_it_is(sent):
            return Taken(str(store(use, caller, _measured(sent.lines, sent.name))["id"]))
        folder = Path(stack.enter_context(TemporaryDirectory()))
        return _packed(use, caller, f"{Path(sent.name).stem}.jsonl", _read(sent, folder, use))


def _sent(form: FormData) -> _Sent:
    upload, pasted = form.get("file"), form.get("lines")
    images = [part for part in form.getlist("images") if isinstance(part, UploadFile) and part.filename]
    question = _text(form, "question") or None
    if isinstance(upload, UploadFile) and upload.filename:
        return _Sent(upload.file, _plain_name(upload.filename), images, question)
    if isinstance(pasted, str) and pasted.strip():
        return _Sent(io.BytesIO(pasted.encode(errors="surrogatepass")), "pasted.jsonl", images, question)
    return _Sent(None, "images", images, question)


def _as_it_is(sent: _Sent) -> bool:
    """Whether the lines need no change: validation tells about each as it was written."""
    assert sent.lines is not None  # noqa: S101 - asked of lines alone
    spec = SourceSpec(location=OpenFile(sent.name, sent.lines), question=sent.question)  # type: ignore[arg-type]
    if detect(spec) != "jsonl":
        return False
    try:
        return not open_source(spec).mapping and not sent.question
    except BadInput:
        return True
    finally:
        sent.lines.seek(0)


def _read(sent: _Sent, folder: Path, use: Services) -> Opened:
    """Lay the parts out as a folder and read it as a dataset."""
    names = _lay_out(sent.images, folder)
    roots = (folder, *use.settings.image_roots)
    if sent.lines is None:
        if not sent.question:
            message = "images without lines need one question for all of them; write it below, or add a file of lines"
            raise BadInput(message, code="no_question", field="question")
        found = open_source(SourceSpec(location=folder, format="images", question=sent.question))
        return Opened(found.lines, roots, found.mapping, found.notes)
    table = folder / f"lines-{sent.name}"
    with table.open("wb") as out:
        shutil.copyfileobj(sent.lines, out, COPY_BYTES)
    found = open_source(SourceSpec(location=table, question=sent.question))
    lines = (_renamed(line, names) for line in found.lines)
    return Opened(lines, roots, found.mapping, _notes(found, len(names)))


def _notes(found: Source, images: int) -> tuple[str, ...]:
    sent = (f"{images} {'image' if images == 1 else 'images'} sent along",) if images else ()
    return (f"read as {found.format}", *sent, *found.notes)


def _lay_out(images: Sequence[UploadFile], folder: Path) -> Mapping[str, str]:
    """Write the images below the folder; returns the name of each in the folder. Raises BadInput on two of a name."""
    names: dict[str, str] = {}
    for part in images:
        name = _plain_name(part.filename or "")
        if name in names:
            raise BadInput(f'two images are called "{name}"; rename one', code="duplicate_image", field="images")
        names[name] = name
        with (folder / name).open("wb") as out:
            shutil.copyfileobj(part.file, out, COPY_BYTES)
    return names


def _renamed(line: Line, names: Mapping[str, str]) -> Line:
    """The line with its image paths cut to names that were sent: a browser tells no folders."""
    images = line.get("images")
    if not isinstance(images, str | list):
        return line
    given = [images] if isinstance(images, str) else images
    return {**line, "images": [_sent_name(image, names) for image in given]}


def _sent_name(image: Any, names: Mapping[str, str]) -> Any:
    return names.get(_plain_name(image), image) if isinstance(image, str) and len(image) < 4096 else image


def _from_dataset(use: Services, caller: Caller, name: str) -> Taken:
    with use.db.read() as conn:
        row = datasets.named(conn, caller.project_id, name)
    if row is None:
        raise BadInput(f'there is no dataset "{name}"', code="not_found", field="dataset")
    opened = SourceReader(use.objects, use.settings)(row, use.now(), MAX_ROWS + 1)
    return _packed(use, caller, f"{name}.jsonl", replace(opened, lines=_bounded(opened.lines, name)))


def _bounded(lines: Iterator[Line], name: str) -> Iterator[Line]:
    for number, line in enumerate(lines):
        if number == MAX_ROWS:
            message = f'the dataset "{name}" has more than {MAX_ROWS:,} rows; run it by a schedule'
            raise BadInput(message, code="too_many_rows", field="dataset")
        yield line


def _packed(use: Services, caller: Caller, filename: str, opened: Opened) -> Taken:
    keeper = BlobKeeper(use.db, use.objects, caller.project_id, use.now)
    with snapshot(opened.lines, opened.roots, keeper, use.settings, lambda: None) as taken:
        document = store(use, caller, Received(taken.stream, filename, taken.size, taken.sha256))
    columns = [f"{part} from {column}" for part, column in opened.mapping.items()]
    return Taken(str(document["id"]), "; ".join([*opened.notes, *columns]))


def _measured(stream: IO[bytes], filename: str) -> Received:
    digest, size = hashlib.sha256(), 0
    stream.seek(0)
    while chunk := stream.read(COPY_BYTES):
        digest.update(chunk)
        size += len(chunk)
    stream.seek(0)
    return Received(stream, filename, size, digest.hexdigest())


def _plain_name(path: str) -> str:
    """The last part of a path of any system, of characters that a file name may hold."""
    last = path.replace("\\", "/").rpartition("/")[2]
    return "".join(char if char.isprintable() else "_" for char in last)[-MAX_NAME:].lstrip(".") or "unnamed"


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""
