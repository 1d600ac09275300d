"""How a question was thought through: the tree of stages, candidates and verdicts, built on read.

The document is plain JSON. Nothing of it is stored: rows are the truth, and this is one way to see them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reasoning import grammar, keys
from reasoning.decisions import Answer, Decision, Failed
from reasoning.plan import plan
from reasoning.policy import Policy
from reasoning.records import Call, CallKind, CallStatus, Candidate, Finish, Query, Ref
from reasoning.rows import ROUND, error_of
from reasoning.strategies import strategy_named
from reasoning.strategies.search import Step
from reasoning.tournament import Match
from reasoning.usage import spent


def build_trace(
    policy: Policy, query: Query, calls: Sequence[Call], decision: Decision | None = None
) -> dict[str, Any]:
    """The tree of one query.

    Args:
        policy: the policy of the query.
        query: the question.
        calls: all its call rows, in any order.
        decision: what was decided, where that is stored (a limit cannot be told from rows); None decides again.

    Returns:
        `stages` (each with `candidates` and `verdicts`), `answer` or `error`, and `usage`, whose parts add up.

    Raises:
        BadInput: the policy names no known strategy.
    """
    if decision is None:
        decision = plan(policy, query, calls)
    steps = strategy_named(policy.strategy).steps(policy, query, calls)
    path = decision.path if isinstance(decision, Answer) else _path_so_far(steps)
    by_key = {call.spec.key: call for call in sorted(calls, key=lambda call: call.spec.key)}
    return {
        "custom_id": query.custom_id,
        "question": query.question,
        "choices": list(query.choices),
        "images": list(query.images),
        "policy": policy.to_mapping(),
        "stages": [_stage(step, path, by_key) for step in steps],
        "answer": _answer(decision),
        "error": {**decision.error.to_json(), "stage": decision.stage} if isinstance(decision, Failed) else None,
        "usage": spent(calls, path).to_json(),
    }


def _path_so_far(steps: Sequence[Step]) -> tuple[Ref, ...]:
    last = steps[-1]
    return last.path if last.winner is None else (*last.path, last.winner.ref)


def _answer(decision: Decision) -> dict[str, Any] | None:
    if not isinstance(decision, Answer):
        return None
    return {
        "text": decision.text,
        "path": [ref.to_json() for ref in decision.path],
        "format_ok": decision.format_ok,
        "degraded": decision.degraded,
    }


def _stage(step: Step, path: tuple[Ref, ...], calls: dict[str, Call]) -> dict[str, Any]:
    generate = [
        call for call in calls.values() if call.spec.kind is CallKind.GENERATE and call.spec.stage == step.stage
    ]
    candidates = [entry for call in generate for entry in _candidates(call, step, path)]
    matches = step.selection.contest.matches if step.selection is not None else []
    return {
        "stage": step.stage,
        "path": [ref.to_json() for ref in step.path],
        "candidates": sorted(candidates, key=lambda entry: (entry["index"], entry["attempt"])),
        "verdicts": [_verdict(match, step, calls) for match in matches],
        "winner": step.winner.index if step.winner is not None else None,
        "flaw": step.flaw,
    }


def _candidates(call: Call, step: Step, path: tuple[Ref, ...]) -> list[dict[str, Any]]:
    common = {"call": call.spec.key, "attempt": call.spec.attempt}
    if call.status is not CallStatus.DONE:
        status = "open" if not call.ended else "failed"
        reason = f"{error_of(call).code}: {error_of(call).message}" if call.ended else None
        return [{**common, "index": index, "status": status, "reason": reason} for index in call.spec.indices]
    return [{**common, **_candidate(candidate, call, step, path)} for candidate in call.candidates]


def _candidate(candidate: Candidate, call: Call, step: Step, path: tuple[Ref, ...]) -> dict[str, Any]:
    reading = grammar.read(candidate.text, call.spec.stage)
    status, reason = _fate(Ref(call.spec.key, candidate.index), candidate, reading, step, path)
    return {
        "index": candidate.index,
        "text": candidate.text,
        "inner": reading.inner,
        "format_ok": reading.format_ok,
        "tokens": candidate.tokens,
        "finish": candidate.finish.value,
        "seed": candidate.seed,
        "status": status,
        "reason": reason,
    }


def _fate(
    ref: Ref, candidate: Candidate, reading: grammar.Reading, step: Step, path: tuple[Ref, ...]
) -> tuple[str, str | None]:
    """`kept`, `pruned`, `duplicate`, `failed` or `open`, and why."""
    if ref in path:
        return "kept", None
    for item in step.field:
        if ref in item.merged:
            return "duplicate", f"same text as candidate {item.index}"
        if ref == item.ref:
            matches = step.selection.contest.matches if step.selection is not None else []
            beaten = next((match for match in matches if _lost(match, ref.index)), None)
            return ("open", None) if beaten is None else ("pruned", f"lost to candidate {beaten.winner}")
    if reading.complete:
        return "open", None
    return "failed", _incomplete(candidate, reading)


def _lost(match: Match, index: int) -> bool:
    return match.winner is not None and index in (match.first, match.second) and match.winner != index


def _incomplete(candidate: Candidate, reading: grammar.Reading) -> str:
    if candidate.finish is Finish.LENGTH:
        return "truncated"
    if candidate.finish is Finish.EARLY_END:
        return "early_end"
    return "no_close_tag" if reading.inner else "empty"


def _verdict(match: Match, step: Step, calls: dict[str, Call]) -> dict[str, Any]:
    rulings = step.selection.rulings if step.selection is not None else {}
    ruling = rulings.get((match.first, match.second)) or rulings.get((match.second, match.first))
    return {
        "round": match.round,
        "pair": [match.first, match.second],
        "winner": match.winner,
        "how": ruling.how if ruling else None,
        "margin": ruling.margin if ruling else None,
        "swap_agreed": ruling.swap_agreed if ruling else None,
        "calls": [_judge_call(call) for call in _judge_calls(match, step.stage, calls)],
    }


def _judge_calls(match: Match, stage: str, calls: dict[str, Call]) -> list[Call]:
    return [call for key, call in calls.items() if keys.judges(key, stage, ROUND, match.first, match.second)]


def _judge_call(call: Call) -> dict[str, Any]:
    return {
        "call": call.spec.key,
        "kind": call.spec.kind.value,
        "status": call.status.value,
        "attempt": call.spec.attempt,
        "showings": [showing.to_json() for showing in call.verdict.showings] if call.verdict else [],
        "error": error_of(call).to_json() if call.ended and call.status is not CallStatus.DONE else None,
        "usage": call.usage.to_json(),
    }
