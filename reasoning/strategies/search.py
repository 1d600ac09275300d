"""The search that the strategies share: steps in order, at each one candidates, a choice, and on from the winner.

`single` is this search with one step and one candidate, `stage_beam` with four steps and N.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reasoning import keys
from reasoning.decisions import (
    DEADLINE,
    INCOMPLETE_STAGE,
    JUDGE_FAILED,
    LOST_CANDIDATES,
    NO_CANDIDATE,
    TOKEN_BUDGET,
    Answer,
    Decision,
    Failed,
    Next,
)
from reasoning.policy import Policy
from reasoning.records import Call, CallError, CallStatus, Query, Ref
from reasoning.rows import Draw, Drawn, Rows, draw
from reasoning.strategies.limits import best_so_far
from reasoning.strategies.modes import MODES, SearchMode, Selection

Steps = tuple[str, ...]
"""The stages searched, in order: the four of them, or `WHOLE` alone."""


class Step(NamedTuple):
    """One stage of the search as far as the rows tell."""

    stage: str
    path: tuple[Ref, ...]
    drawn: Drawn
    field: list[Draw]
    selection: Selection | None
    """None while candidates are still drawn, or when there are none to choose from."""
    winner: Draw | None
    round: int = 0

    @property
    def flaw(self) -> str | None:
        """Why what was won here is less than a full search."""
        if self.winner is not None and not self.winner.reading.complete:
            return INCOMPLETE_STAGE
        if self.selection is not None and any(ruling.failed for ruling in self.selection.rulings.values()):
            return JUDGE_FAILED
        return LOST_CANDIDATES if self.drawn.errors else None


def search(
    policy: Policy,
    query: Query,
    calls: Sequence[Call],
    steps: Steps,
    *,
    width: int,
    limit: str | None,
    idle: bool,
) -> Decision:
    """Decide for one query: see `Strategy.plan`."""
    mode = MODES[policy.mode]
    if limit is None and any(map(_late, calls)):
        limit = DEADLINE  # seen by the worker first: the caller's clock may be a moment behind
    # What was cut off because of a limit must not count as a failure when the decision is made again.
    rows = _rows(policy, query, calls if limit is None else _not_cut_off(calls), width, idle=idle)
    step = current_step(rows, mode, steps)
    decision = _decide(rows, mode, steps, step)
    if not isinstance(decision, Next):
        return decision
    if limit is None and policy.token_budget is not None and decision.calls:
        # New calls wait until all open ones ended, so that the sum does not depend on the order of arrival.
        if not all(call.ended for call in rows.calls.values()):
            return Next()
        if sum(call.usage.generated_tokens for call in rows.calls.values()) >= policy.token_budget:
            limit = TOKEN_BUDGET
    if limit is None:
        return decision
    return best_so_far(rows, mode, step, limit)


def steps_taken(policy: Policy, query: Query, calls: Sequence[Call], steps: Steps, width: int) -> list[Step]:
    """Every step so far, the one where the search stands last; calls that were cut off count as never begun."""
    mode = MODES[policy.mode]
    rows = _rows(policy, query, _not_cut_off(calls), width)
    step = current_step(rows, mode, steps)
    return [*_earlier(rows, mode, steps, step), step]


def current_step(rows: Rows, mode: SearchMode, steps: Steps) -> Step:
    """The step where the search stands: the first without a winner, or the last."""
    place, path = _resume(rows, steps)
    while True:
        step = take_step(rows, mode, steps[place], path)
        if step.winner is None or place + 1 == len(steps):
            return step
        path = (*path, step.winner.ref)
        place += 1


def take_step(rows: Rows, mode: SearchMode, stage: str, path: tuple[Ref, ...]) -> Step:
    """Read one stage: its candidates, those that compete, and the choice among them."""
    drawn = draw(rows, stage, path)
    if drawn.new or drawn.waiting:
        return Step(stage, path, drawn, [], None, None, rows.round)
    field = mode.field(drawn.draws)
    if not field:
        return Step(stage, path, drawn, field, None, None, rows.round)
    selection = mode.select(rows, stage, path, field)
    champion = selection.contest.champion
    winner = next((item for item in field if item.index == champion), None)
    return Step(stage, path, drawn, field, selection, winner, rows.round)


def _resume(rows: Rows, steps: Steps) -> tuple[int, tuple[Ref, ...]]:
    """The last step that was begun, with its path.

    Outcomes are written once, so the path in its rows is what the earlier steps would yield again.
    """
    for place in range(len(steps) - 1, 0, -1):
        names = keys.generate_keys(steps[place], rows.round, rows.width)
        for name in (names.together, *names.apart):
            call = rows.calls.get(name)
            if call is not None:
                return place, call.spec.path
    return 0, ()


def _decide(rows: Rows, mode: SearchMode, steps: Steps, step: Step) -> Decision:
    if step.drawn.new or step.drawn.waiting:
        return Next(tuple(step.drawn.new))
    if not step.field:
        return Failed(_first_cause(step), step.stage)
    if step.winner is None:
        return Next(tuple(step.selection.new) if step.selection is not None else ())
    earlier = _earlier(rows, mode, steps, step)
    taken = [*earlier, step]
    kept = [item.reading for each in earlier for item in each.field if item.ref in step.path]
    flaws = [each.flaw for each in taken if each.flaw is not None]
    return Answer(
        text=step.winner.reading.inner,
        path=(*step.path, step.winner.ref),
        format_ok=all(reading.format_ok for reading in (*kept, step.winner.reading)),
        degraded=min(flaws, key=_SEVERITY.index) if flaws else None,
    )


def _earlier(rows: Rows, mode: SearchMode, steps: Steps, step: Step) -> list[Step]:
    return [take_step(rows, mode, stage, step.path[:place]) for place, stage in enumerate(steps[: len(step.path)])]


def _rows(policy: Policy, query: Query, calls: Iterable[Call], width: int, *, idle: bool = False) -> Rows:
    by_key = {call.spec.key: call for call in calls}
    return Rows(policy, query, by_key, width, MODES[policy.mode].retries(policy), idle)


def _not_cut_off(calls: Iterable[Call]) -> list[Call]:
    return [call for call in calls if call.status is not CallStatus.CANCELLED and not _late(call)]


def _late(call: Call) -> bool:
    """Whether the deadline of the query, and not a time limit of this call alone, ended it."""
    return call.error is not None and call.error.code == DEADLINE


_SEVERITY = (INCOMPLETE_STAGE, JUDGE_FAILED, LOST_CANDIDATES)


def _first_cause(step: Step) -> CallError:
    if step.drawn.errors:
        return step.drawn.errors[0]
    return CallError(
        NO_CANDIDATE,
        f"No candidate of stage {step.stage} can be used: each was cut off, ended early or came without its tags. "
        "Raise policy.max_tokens or policy.retries, or use a model that writes the four stages.",
    )
