"""Questions with known answers: the input lines of a job, read for a teacher or for rejection sampling."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation import Expected
from reasoning.errors import BadInput
from reasoning.records import Query


@dataclass(frozen=True, slots=True)
class Known:
    """A question about one image whose answer is known. `image` is relative to the file it came from."""

    custom_id: str
    question: str
    image: str
    answer: str
    choices: tuple[str, ...] = ()

    @property
    def expected(self) -> Expected:
        """What a CONCLUSION must agree with."""
        return Expected(self.answer, self.choices)

    def query(self, digest: str) -> Query:
        """The query as the search sees it; `digest` is the content hash of the image."""
        return Query(self.custom_id, self.question, (digest,), self.choices)


def read(path: Path) -> list[Known]:
    """The questions of a `questions.jsonl`, each with an answer and one image that is there.

    Raises:
        BadInput: the file or a line is not usable; names file, line and field.
    """
    if not path.is_file():
        raise BadInput(f"{path} is not a file; name a questions.jsonl", code="missing_file", field="questions")
    known: dict[str, Known] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = _parse(line, path.parent)
                if row.custom_id in known:
                    raise _bad("custom_id", f'"{row.custom_id}" was used before')
            except BadInput as error:
                where = f"{path}:{number}: {error.field}: {error.message}"
                raise BadInput(where, code=error.code, field=error.field, line=number) from None
            known[row.custom_id] = row
    return list(known.values())


def load_images(rows: list[Known], folder: Path) -> tuple[dict[str, str], Callable[[str], bytes]]:
    """Content hash of each image by its path, and a loader from hash to bytes, as engines want it."""
    digests: dict[str, str] = {}
    paths: dict[str, Path] = {}
    for row in rows:
        if row.image not in digests:
            digest = hashlib.sha256((folder / row.image).read_bytes()).hexdigest()
            digests[row.image], paths[digest] = digest, folder / row.image
    return digests, lambda digest: paths[digest].read_bytes()


def _parse(line: str, folder: Path) -> Known:
    try:
        record: Any = json.loads(line)
    except ValueError as error:
        raise _bad("line", f"not JSON ({error})") from None
    if not isinstance(record, dict):
        raise _bad("line", "must be an object")
    for field in ("custom_id", "question", "answer"):
        if not isinstance(record.get(field), str) or not record[field]:
            raise _bad(field, "missing, empty or not text")
    images = record.get("images")
    if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], str):
        raise _bad("images", "must be a list of one path; rows of this format hold one image")
    if not (folder / images[0]).is_file():
        raise _bad("images", f"{folder / images[0]} is not there")
    choices = record.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise _bad("choices", "must be a list of texts")
    return Known(record["custom_id"], record["question"], images[0], record["answer"], tuple(choices))


def _bad(field: str, message: str) -> BadInput:
    return BadInput(message, code="invalid_row", field=field)
