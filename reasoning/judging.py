"""What follows from verdicts: the winner of a pair, how that was decided, or the calls still needed."""

from __future__ import annotations

from typing import NamedTuple

from reasoning import keys, seeds
from reasoning.policy import Judge, Policy
from reasoning.records import Call, CallKind, CallSpec, CallStatus, Ref, Showing
from reasoning.rows import Draw, Rows
from reasoning.stages import Stage

AGREED = "agreed"
"""Both orders name the same candidate."""
ONE_ORDER = "one_order"
"""Only one order was asked for, or only one could be read."""
MARGIN = "margin"
"""The orders disagree: the mean probability over both decides."""
SEED = "seed"
"""A tie that nothing else settles: decided by seed."""
FALLBACK = "fallback"
"""Published mode: a reply that cannot be read counts for the second candidate."""
CHECK = "check"
"""Published mode: one of the two failed the pre-check."""


class Ruling(NamedTuple):
    """The winner of a pair and why."""

    winner: int
    how: str
    margin: float | None = None
    """Mean probability of the first candidate minus that of the second, -1 to 1; None without probabilities."""
    swap_agreed: bool | None = None
    """Whether both orders named the same candidate; None when they cannot be compared."""
    failed: bool = False
    """A judge call of this pair ended in an engine error."""


def judge_of(policy: Policy) -> Judge:
    """The judge in force: the published algorithm knows only words."""
    return "words" if policy.mode == "published" else policy.judge


def rule_strict(
    rows: Rows, stage: str, path: tuple[Ref, ...], first: Draw, second: Draw
) -> Ruling | tuple[CallSpec, ...]:
    """Settle a pair with swap check, capped retries and explicit ties; calls to insert (or wait for) otherwise."""
    key = keys.compare_key(stage, rows.round, first.index, second.index)
    shown: dict[tuple[int, ...], Showing] = {}
    orders = 2 if rows.policy.swap_check else 1
    failed = False
    for attempt in range(rows.policy.judge_retries + 1):
        name = keys.retry_key(key, attempt)
        call = rows.calls.get(name)
        if call is None:
            pair = (first.ref, second.ref)
            spec = CallSpec(name, CallKind.COMPARE, stage, rows.round, path, (), attempt, pair, rows.policy.swap_check)
            return (spec,)
        if not call.ended:
            return ()
        if call.status is not CallStatus.DONE:
            failed = True
            break
        for showing in _showings(call):
            if showing.parse == "ok":
                shown.setdefault(showing.order, showing)
        if len(shown) >= orders:
            break
    return _weigh(rows, stage, first.index, second.index, list(shown.values()), failed)


def rule_published(
    rows: Rows, stage: str, path: tuple[Ref, ...], first: Draw, second: Draw
) -> Ruling | tuple[CallSpec, ...]:
    """Settle a pair as published: pre-check of each reasoning, then one reply, unreadable counting for the second.

    An engine error leaves nothing to read, which is read as the published code reads an empty reply.
    """
    failed = False
    if stage == Stage.REASONING:
        for checked, other in ((first, second), (second, first)):
            name = keys.check_key(stage, rows.round, first.index, second.index, checked.index)
            call = rows.calls.get(name)
            if call is None:
                return (CallSpec(name, CallKind.CHECK, stage, rows.round, path, candidates=(checked.ref,)),)
            if not call.ended:
                return ()
            failed = failed or call.status is not CallStatus.DONE
            if any(showing.parse == "ok" and showing.choice is None for showing in _showings(call)):
                return Ruling(other.index, CHECK, failed=failed)
    name = keys.compare_key(stage, rows.round, first.index, second.index)
    call = rows.calls.get(name)
    if call is None:
        return (CallSpec(name, CallKind.COMPARE, stage, rows.round, path, candidates=(first.ref, second.ref)),)
    if not call.ended:
        return ()
    failed = failed or call.status is not CallStatus.DONE
    for showing in _showings(call):
        if showing.parse == "ok" and showing.choice is not None:
            return Ruling(showing.choice, ONE_ORDER, failed=failed)
    return Ruling(second.index, FALLBACK, failed=failed)


def _weigh(rows: Rows, stage: str, first: int, second: int, shown: list[Showing], failed: bool) -> Ruling:
    choices = [showing.choice for showing in shown]
    margin = _margin(first, shown)
    agreed = choices[0] == choices[1] if len(choices) > 1 else None
    if choices and choices[0] is not None and agreed is not False:
        how = AGREED if agreed else ONE_ORDER
        return Ruling(choices[0], how, margin, agreed, failed)
    if margin:
        return Ruling(first if margin > 0 else second, MARGIN, margin, agreed, failed)
    seed = seeds.tie_break(rows.policy.seed, rows.query.custom_id, stage, rows.round, first, second)
    return Ruling(second if seed & 1 else first, SEED, margin, agreed, failed)


def _margin(first: int, shown: list[Showing]) -> float | None:
    """Mean over the orders shown of P(first) - P(second); None if an order has no probabilities."""
    if not shown or not all(showing.probabilities for showing in shown):
        return None
    signs = (1.0 if showing.order[0] == first else -1.0 for showing in shown)
    gaps = (showing.probabilities[0] - showing.probabilities[1] for showing in shown)
    return sum(sign * gap for sign, gap in zip(signs, gaps, strict=True)) / len(shown)


def _showings(call: Call) -> tuple[Showing, ...]:
    return call.verdict.showings if call.verdict is not None else ()
