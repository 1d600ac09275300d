"""What a search answers when it must end now.

An answer needs a conclusion: a candidate of that stage, or one that a model wrote ahead of time. Earlier
stages are never shown as an answer; without a conclusion the query fails with the limit as its code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reasoning import grammar
from reasoning.decisions import DEADLINE, TOKEN_BUDGET, Answer, Decision, Failed
from reasoning.records import WHOLE, CallError
from reasoning.rows import Rows, candidate_of
from reasoning.stages import Stage
from reasoning.tournament import standing

if TYPE_CHECKING:
    from reasoning.strategies.modes import SearchMode
    from reasoning.strategies.search import Step


_MORE = {
    DEADLINE: "Give it more time (policy.deadline_s, or the completion window of its job)",
    TOKEN_BUDGET: "Raise policy.token_budget",
}
"""How the limit becomes a wider one."""


def best_so_far(rows: Rows, mode: SearchMode, step: Step, limit: str) -> Decision:
    """The best answer at `step`, marked degraded with `limit`, or a failure of that code. Never `Next`."""
    if rows.policy.on_limit == "degrade":
        asked = step.stage in (Stage.CONCLUSION, WHOLE)
        answer = _leading_conclusion(mode, step, limit) if asked else None
        answer = answer or _early_conclusion(rows, step, limit)
        if answer is not None:
            return answer
    # A retry has its whole time again and keeps what is drawn, so it gets further; tokens stay spent.
    return Failed(CallError(limit, _told(rows, step, limit), retryable=limit == DEADLINE), step.stage)


def _told(rows: Rows, step: Step, limit: str) -> str:
    """Where the search ended, why there is no answer, and what to do."""
    if rows.policy.on_limit == "fail":
        why = 'policy.on_limit is "fail"; "degrade" answers with the best conclusion so far'
    else:
        why = "no conclusion was there yet to answer with"
    more = _MORE.get(limit, "Lift the limit")
    return f"The search ended in stage {step.stage} ({limit}): {why}. {more} and retry the query."


def _leading_conclusion(mode: SearchMode, step: Step, limit: str) -> Answer | None:
    """The candidate with most wins so far, then the one that most candidates agree with, then the first."""
    field = step.field or mode.field(step.drawn.draws)
    if not field:
        return None
    votes = {item.index: len(item.merged) for item in field}
    by_votes = sorted(votes, key=lambda index: (-votes[index], index))
    leader = standing(by_votes, step.selection.contest)[0] if step.selection is not None else by_votes[0]
    best = next(item for item in field if item.index == leader)
    return Answer(best.reading.inner, (*step.path, best.ref), best.reading.format_ok, limit)


def _early_conclusion(rows: Rows, step: Step, limit: str) -> Answer | None:
    """A conclusion that some model wrote before it was asked for, first in this stage, then on the path."""
    places = [(step.path, item.ref) for item in step.drawn.draws]
    places += [(step.path[:place], step.path[place]) for place in range(len(step.path) - 1, -1, -1)]
    for path, ref in places:
        call = rows.calls.get(ref.call)
        candidate = candidate_of(call, ref.index) if call is not None else None
        reading = grammar.read_answer(candidate.text).get(Stage.CONCLUSION) if candidate is not None else None
        if reading is not None and reading.complete:
            return Answer(reading.inner, (*path, ref), format_ok=False, degraded=limit)
    return None
