"""What a slot says of a source that failed: which dataset, where, what happened, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ADVICE: Mapping[str, str] = {
    "file_not_found": "Put it back, or name its new place in the dataset",
    "source_missing": "Put the files back, or name their new place in the dataset",
    "unknown_column": "Put the column back, or name another among the columns of the dataset",
    "identity_missing": "Fill the column in, or tell rows apart by others",
    "empty_dataset": "Put rows or images there, or name another place in the dataset",
    "source_unreadable": "Mend the source, or say in the dataset which format it has",
}
"""By the code of the error, where the error itself does not tell."""


def told(dataset: Any, code: str, message: str) -> str:
    """The note of a slot. Earlier results are not touched by a source that fails."""
    place = "" if dataset is None else f'dataset "{dataset.name}", {dataset.source.get("address", "")}: '
    advice = ADVICE.get(code)
    said = message.rstrip(".")
    return f"{place}{said}" + (f". {advice}" if advice else "")
