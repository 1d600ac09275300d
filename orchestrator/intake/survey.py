"""What is in an input, found by the very validation that ingest does, with nothing written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from orchestrator.intake.chunks import Chunk, in_chunks, resolve_chunk
from orchestrator.intake.records import AcceptedLine, LineError
from orchestrator.intake.resolve import ImageResolver
from orchestrator.intake.seen import SeenIds
from orchestrator.intake.validate import LineRules, validate
from reasoning.cost import Cost, cost_of
from reasoning.errors import BadInput
from reasoning.policy import Policy

LISTED_ERRORS = 100
"""Errors listed; all are counted."""

DISTINCT_OVERRIDES = 1000
"""Overrides whose lines are counted before their cost is added up."""


@dataclass(slots=True)
class Report:
    """The result of a dry run."""

    lines: int = 0
    """Lines that are not blank."""
    accepted: int = 0
    refused: int = 0
    errors: list[LineError] = field(default_factory=list)
    """The first of them, in line order."""
    error_count: int = 0
    images: int = 0
    """References to images on accepted lines."""
    distinct_images: int = 0
    """Images of different content among them."""
    fields: Counter[str] = field(default_factory=Counter)
    """On how many accepted lines each part is present: question, images, choices, answer, ..."""
    forms: Counter[str] = field(default_factory=Counter)
    """Accepted lines by form: native, openai."""
    cost: Cost = field(default_factory=lambda: Cost(0, 0, 0, 0, 0, 0, 0))
    """What the accepted lines imply under their policies."""

    def to_json(self) -> dict[str, Any]:
        """The document that `--dry-run` prints."""
        return {
            "lines": self.lines,
            "accepted": self.accepted,
            "refused": self.refused,
            "error_count": self.error_count,
            "errors": [error.to_json() for error in self.errors],
            "images": self.images,
            "distinct_images": self.distinct_images,
            "fields": dict(self.fields),
            "forms": dict(self.forms),
            "cost": self.cost.to_json(),
        }

    def add_error(self, error: LineError) -> None:
        """Count an error, and list it while there is room."""
        self.error_count += 1
        if len(self.errors) < LISTED_ERRORS:
            self.errors.append(error)


def survey(chunks: Iterable[bytes], rules: LineRules, resolver: ImageResolver) -> Report:
    """Validate a whole input and count what is in it; memory does not grow with its length."""
    report = Report()
    costs = _Costs(rules.policy)
    with SeenIds() as ids, SeenIds() as hashes:
        try:
            for group in in_chunks(validate(chunks, rules, ids.first_use)):
                _count(resolve_chunk(group, resolver), report, costs, hashes)
        except BadInput as error:
            report.add_error(LineError(error.line or 1, error.field, error.code, error.message))
    report.cost = costs.total()
    return report


def refusals(chunks: Iterable[bytes], rules: LineRules, resolver: ImageResolver) -> Iterator[LineError]:
    """Every error that `survey` counts, in line order; memory does not grow with their number."""
    with SeenIds() as ids:
        try:
            for group in in_chunks(validate(chunks, rules, ids.first_use)):
                for _, refused in resolve_chunk(group, resolver).refused:
                    yield from refused.errors
        except BadInput as error:
            yield LineError(error.line or 1, error.field, error.code, error.message)


def _count(chunk: Chunk, report: Report, costs: _Costs, hashes: SeenIds) -> None:
    report.lines += len(chunk.accepted) + len(chunk.refused)
    report.accepted += len(chunk.accepted)
    report.refused += len(chunk.refused)
    for _, refused in chunk.refused:
        for error in refused.errors:
            report.add_error(error)
    for number, line, images in chunk.accepted:
        report.images += len(images)
        report.distinct_images += sum(1 for sha256 in images if hashes.first_use(sha256, number) is None)
        report.fields.update(_present(line))
        report.forms["openai" if "wire" in line.extra else "native"] += 1
        costs.add(line)


def _present(line: AcceptedLine) -> list[str]:
    parts = {"question": line.question, "images": line.images, "choices": line.choices, "context": line.context}
    own = {name: value for name, value in line.extra.items() if name != "wire"}
    return [name for name, value in {**parts, "policy": line.policy, **own}.items() if value not in (None, (), {})]


class _Costs:
    """Adds up costs, computing that of equal overrides once."""

    def __init__(self, base: Policy) -> None:
        self._base = base
        self._counts: Counter[bytes] = Counter()
        self._sum = Cost(0, 0, 0, 0, 0, 0, 0)

    def add(self, line: AcceptedLine) -> None:
        self._counts[orjson.dumps(dict(line.policy), option=orjson.OPT_SORT_KEYS)] += 1
        if len(self._counts) > DISTINCT_OVERRIDES:
            self.total()

    def total(self) -> Cost:
        for overrides, count in self._counts.items():
            self._sum += cost_of(self._base.with_overrides(orjson.loads(overrides)), count)
        self._counts.clear()
        return self._sum
