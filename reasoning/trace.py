"""How a question was thought through: the tree of stages, candidates and verdicts, built on read.

The document is plain JSON. Nothing of it is stored: rows are the truth, and this is one way to see them.

A strategy may go back to a stage and begin it anew. The keys of the calls count such returns as rounds, and every round
of a stage is an entry of its own. What was kept on a way that was left so is `retraced`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reasoning import grammar, keys
from reasoning.decisions import Answer, Decision, Failed
from reasoning.plan import plan
from reasoning.policy import Policy
from reasoning.records import Call, CallKind, CallSpec, CallStatus, Candidate, Finish, Query, Ref
from reasoning.rows import Rows, error_of
from reasoning.stages import STAGES
from reasoning.strategies import strategy_named
from reasoning.strategies.modes import MODES
from reasoning.strategies.search import Step, take_step
from reasoning.tournament import Match
from reasoning.usage import spent

_ORDER = {stage.value: place for place, stage in enumerate(STAGES)}
"""Of the stages; a whole answer in one text is the only one of its query."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the fate of a candidate depends on beside its own step."""

    calls: Mapping[str, Call]
    path: tuple[Ref, ...]
    once_kept: frozenset[Ref]
    """Candidates that won their stage, or that a later call continued."""
    newest: Mapping[str, int]
    """The newest round of each stage."""
    answered: bool = False

    def given_up(self, ref: Ref) -> str | None:
        """Why a candidate that was kept once is not on the path; None for one that never was."""
        if ref not in self.once_kept:
            return None
        stage = self.returned_to(self.calls[ref.call].spec)
        if stage is not None:
            return f"kept until the search went back to {stage}"
        if self.answered and any(self.newest.values()):
            return "kept until the search took up an earlier candidate again"
        return None

    def returned_to(self, spec: CallSpec) -> str | None:
        """The first stage on the way of a call that was begun anew since; None on the way that is the newest."""
        before = (self.calls[ref.call].spec for ref in spec.path if ref.call in self.calls)
        way = sorted((*before, spec), key=lambda each: _ORDER.get(each.stage, 0))
        return next((each.stage for each in way if each.round < self.newest[each.stage]), None)


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
    by_key = {call.spec.key: call for call in sorted(calls, key=lambda call: call.spec.key)}
    steps = _steps(policy, query, calls, by_key)
    seen = _seen(decision, steps, by_key)
    return {
        "custom_id": query.custom_id,
        "question": query.question,
        "choices": list(query.choices),
        "images": list(query.images),
        "policy": policy.to_mapping(),
        "stages": [_stage(step, seen) for step in steps],
        "answer": _answer(decision),
        "error": {**decision.error.to_json(), "stage": decision.stage} if isinstance(decision, Failed) else None,
        "usage": spent(calls, seen.path).to_json(),
    }


def _steps(policy: Policy, query: Query, calls: Sequence[Call], by_key: Mapping[str, Call]) -> list[Step]:
    """What the strategy tells, then the rounds that it does not tell of, each on the path of its own calls."""
    begun = _begun(by_key)
    steps = [*strategy_named(policy.strategy).steps(policy, query, calls)]
    steps += _other_rounds(policy, query, by_key, begun, {(step.round, step.stage) for step in steps})
    paths = {key: specs[0].path for key, specs in begun.items()}
    return [step._replace(path=paths.get((step.round, step.stage), step.path)) for step in steps]


Begun = Mapping[tuple[int, str], Sequence[CallSpec]]
"""The calls that draw candidates, by round and stage."""


def _begun(calls: Mapping[str, Call]) -> Begun:
    begun: dict[tuple[int, str], list[CallSpec]] = {}
    for call in calls.values():
        if call.spec.kind is CallKind.GENERATE and call.status is not CallStatus.CANCELLED:
            begun.setdefault((call.spec.round, call.spec.stage), []).append(call.spec)
    return begun


def _other_rounds(
    policy: Policy, query: Query, calls: Mapping[str, Call], begun: Begun, known: Collection[tuple[int, str]]
) -> Iterator[Step]:
    """Rounds that stand in the rows and that the strategy did not tell of, by round and stage."""
    mode = MODES[policy.mode]
    for round_, stage in sorted(begun, key=lambda each: (each[0], _ORDER.get(each[1], 0))):
        if (round_, stage) not in known:
            specs = begun[round_, stage]
            width = 1 + max(index for spec in specs for index in spec.indices)
            rows = Rows(policy, query, calls, width, mode.retries(policy), round=round_)
            yield take_step(rows, mode, stage, specs[0].path)


def _seen(decision: Decision, steps: Sequence[Step], calls: Mapping[str, Call]) -> _Seen:
    once = {ref for call in calls.values() for ref in call.spec.path}
    once.update(step.winner.ref for step in steps if step.winner is not None)
    newest: dict[str, int] = {}
    for step in steps:
        newest[step.stage] = max(step.round, newest.get(step.stage, 0))
    seen = _Seen(calls, (), frozenset(once), newest)
    if isinstance(decision, Answer):
        return replace(seen, path=decision.path, answered=True)
    return replace(seen, path=_path_so_far(steps, seen))


def _path_so_far(steps: Sequence[Step], seen: _Seen) -> tuple[Ref, ...]:
    """What is kept where the search stands: at the last stage of the way that was begun newest."""

    def on_newest_way(step: Step) -> bool:
        return seen.returned_to(CallSpec("", CallKind.GENERATE, step.stage, step.round, step.path)) is None

    last = max(filter(on_newest_way, steps), key=lambda step: _ORDER.get(step.stage, 0), default=steps[-1])
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


def _stage(step: Step, seen: _Seen) -> dict[str, Any]:
    generate = [
        call
        for call in seen.calls.values()
        if (call.spec.kind, call.spec.stage, call.spec.round) == (CallKind.GENERATE, step.stage, step.round)
    ]
    candidates = [entry for call in generate for entry in _candidates(call, step, seen)]
    matches = step.selection.contest.matches if step.selection is not None else []
    return {
        "stage": step.stage,
        "round": step.round,
        "path": [ref.to_json() for ref in step.path],
        "candidates": sorted(candidates, key=lambda entry: (entry["index"], entry["attempt"])),
        "verdicts": [_verdict(match, step, seen.calls) for match in matches],
        "winner": step.winner.index if step.winner is not None else None,
        "flaw": step.flaw,
    }


def _candidates(call: Call, step: Step, seen: _Seen) -> list[dict[str, Any]]:
    common = {"call": call.spec.key, "attempt": call.spec.attempt}
    if call.status is not CallStatus.DONE:
        status = "open" if not call.ended else "failed"
        reason = f"{error_of(call).code}: {error_of(call).message}" if call.ended else None
        return [{**common, "index": index, "status": status, "reason": reason} for index in call.spec.indices]
    return [{**common, **_candidate(candidate, call, step, seen)} for candidate in call.candidates]


def _candidate(candidate: Candidate, call: Call, step: Step, seen: _Seen) -> dict[str, Any]:
    reading = grammar.read(candidate.text, call.spec.stage)
    status, reason = _fate(Ref(call.spec.key, candidate.index), candidate, reading, step, seen)
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


def _fate(ref: Ref, candidate: Candidate, reading: grammar.Reading, step: Step, seen: _Seen) -> tuple[str, str | None]:
    """`kept`, `retraced`, `pruned`, `duplicate`, `failed` or `open`, and why."""
    if ref in seen.path:
        return "kept", None
    if (why := seen.given_up(ref)) is not None:
        return "retraced", why
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


def _verdict(match: Match, step: Step, calls: Mapping[str, Call]) -> dict[str, Any]:
    rulings = step.selection.rulings if step.selection is not None else {}
    ruling = rulings.get((match.first, match.second)) or rulings.get((match.second, match.first))
    return {
        "round": match.round,
        "pair": [match.first, match.second],
        "winner": match.winner,
        "how": ruling.how if ruling else None,
        "margin": ruling.margin if ruling else None,
        "swap_agreed": ruling.swap_agreed if ruling else None,
        "calls": [_judge_call(call) for call in _judge_calls(match, step, calls)],
    }


def _judge_calls(match: Match, step: Step, calls: Mapping[str, Call]) -> list[Call]:
    pair = (match.first, match.second)
    return [call for key, call in calls.items() if keys.judges(key, step.stage, step.round, *pair)]


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
