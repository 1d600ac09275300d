"""Where the tokens of a query went. The parts add up to what the engines counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from reasoning.records import Call, CallKind, Ref, Usage


@dataclass(frozen=True, slots=True)
class Spent:
    """Generated tokens by fate, and the engines' own totals. kept + discarded + judged = total.generated_tokens."""

    kept: int
    """In candidates on the path of the answer."""
    discarded: int
    """In all other candidates, and in calls that failed after some work."""
    judged: int
    """In the words of judges and pre-checks."""
    total: Usage

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def spent(calls: Iterable[Call], path: tuple[Ref, ...]) -> Spent:
    """Account for the calls of one query whose kept candidates are `path`."""
    total = Usage()
    kept = judged = 0
    for call in calls:
        total += call.usage
        if call.spec.kind is CallKind.GENERATE:
            kept += sum(item.tokens for item in call.candidates if Ref(call.spec.key, item.index) in path)
        else:
            judged += call.usage.generated_tokens
    return Spent(kept, total.generated_tokens - kept - judged, judged, total)
