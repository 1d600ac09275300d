"""The rows of one query as strategies read them, and what came of the candidates of one stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from reasoning import grammar, keys
from reasoning.policy import Policy
from reasoning.records import Call, CallError, CallKind, CallSpec, CallStatus, Candidate, Query, Ref


class Rows(NamedTuple):
    """Calls by key under their policy and query. `width` is the number of candidates per stage."""

    policy: Policy
    query: Query
    calls: Mapping[str, Call]
    width: int
    retries: int
    """Draws of an incomplete candidate after the first."""
    idle: bool = False
    round: int = 0
    """Of the stage being read: counts the returns to it. The strategies so far never return."""


@dataclass(frozen=True, slots=True)
class Draw:
    """The newest attempt at candidate `index` that left text."""

    index: int
    ref: Ref
    reading: grammar.Reading
    merged: tuple[Ref, ...] = ()
    """Later candidates with the same text, which this one stands for."""


@dataclass(slots=True)
class Drawn:
    """The candidates of one stage so far."""

    draws: list[Draw] = field(default_factory=list)
    new: list[CallSpec] = field(default_factory=list)
    """Calls to insert: the stage's first draw, or another draw of incomplete candidates."""
    waiting: bool = False
    """Some call is still open."""
    errors: list[CallError] = field(default_factory=list)
    """Engine errors by candidate, then attempt: an order that does not depend on arrival."""


def draw(rows: Rows, stage: str, path: tuple[Ref, ...]) -> Drawn:
    """Read the generate calls of `stage` after `path`, and say which are missing."""
    names = keys.generate_keys(stage, rows.round, rows.width)
    together = rows.calls.get(names.together)
    drawn = Drawn()
    missing: list[int] = []
    for index in range(rows.width):
        call = together or rows.calls.get(names.apart[index])
        if call is None:
            missing.append(index)
        else:
            _follow(rows, drawn, call, names.apart[index], index)
    if missing:
        drawn.new.extend(_first_draw(rows, stage, path, missing, names))
    return drawn


def merged(draws: list[Draw]) -> list[Draw]:
    """Candidates of equal text (white space apart) become one, under the lowest index."""
    groups: dict[str, Draw] = {}
    for item in draws:
        text = " ".join(item.reading.inner.split())
        known = groups.get(text)
        groups[text] = item if known is None else replace(known, merged=(*known.merged, item.ref))
    return list(groups.values())


def candidate_of(call: Call, index: int) -> Candidate | None:
    """The candidate of that index in the outcome of a call, if it is there."""
    return next((item for item in call.candidates if item.index == index), None)


def error_of(call: Call) -> CallError:
    """Why a call that ended has no outcome."""
    if call.error is not None:
        return call.error
    return CallError(code=call.status.value, message=f"Call {call.spec.key} is {call.status.value} without a reason.")


def _follow(rows: Rows, drawn: Drawn, call: Call, key: str, index: int) -> None:
    """Add candidate `index` to `drawn`: from its first call through its further attempts."""
    best: Draw | None = None
    attempt = 0
    while True:
        if call.status is not CallStatus.DONE:
            if call.ended:
                drawn.errors.append(error_of(call))
            else:
                drawn.waiting = True
            break
        candidate = candidate_of(call, index)
        if candidate is not None:
            reading = grammar.read(candidate.text, call.spec.stage)
            if reading.inner or best is None:
                best = Draw(index, Ref(call.spec.key, index), reading)
        if attempt >= rows.retries or (best is not None and best.reading.complete):
            break
        attempt += 1
        again = rows.calls.get(keys.retry_key(key, attempt))
        if again is None:
            drawn.new.append(_redraw(call.spec, keys.retry_key(key, attempt), index, attempt))
            break
        call = again
    if best is not None:
        drawn.draws.append(best)


def _first_draw(
    rows: Rows, stage: str, path: tuple[Ref, ...], missing: list[int], names: keys.GenerateKeys
) -> list[CallSpec]:
    fan_out = rows.policy.fan_out
    apart = fan_out == "apart" or (fan_out == "auto" and rows.idle)
    # A stage begun one call each goes on so: the two shapes never mix.
    if len(missing) == rows.width and not apart:
        return [CallSpec(names.together, CallKind.GENERATE, stage, rows.round, path, tuple(missing))]
    return [CallSpec(names.apart[index], CallKind.GENERATE, stage, rows.round, path, (index,)) for index in missing]


def _redraw(spec: CallSpec, key: str, index: int, attempt: int) -> CallSpec:
    return CallSpec(key, CallKind.GENERATE, spec.stage, spec.round, spec.path, (index,), attempt)
