"""Records to score from the result lines of a job, as the API exports them joined with the input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from evaluation.score import Record
from reasoning.errors import BadInput


def records_of(lines: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    """One record per result line whose input had an answer.

    Raises:
        BadInput: no line has a known answer.
    """
    known = False
    for line in lines:
        if line.get("expected") is None:
            continue
        known = True
        usage = line.get("usage") or {}
        yield Record(
            custom_id=str(line["custom_id"]),
            conclusion=line.get("answer"),
            answer=str(line["expected"]),
            choices=tuple(line.get("choices") or ()),
            format_ok=line.get("format_ok"),
            tokens=int(usage.get("generated_tokens", 0)),
        )
    if not known:
        message = 'no line of this job has a known answer; submit lines with an "answer" field to score them'
        raise BadInput(message, code="nothing_to_score", field="answer")
