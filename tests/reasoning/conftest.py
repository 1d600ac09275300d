"""A model in miniature: outcomes that depend on what is asked alone, never on when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from reasoning.plan import Decision, Next, plan
from reasoning.policy import Policy
from reasoning.records import (
    WHOLE,
    Call,
    CallError,
    CallKind,
    CallSpec,
    CallStatus,
    Candidate,
    Finish,
    Query,
    Showing,
    Usage,
    Verdict,
)
from reasoning.stages import STAGES, Stage

QUERY = Query("q-1", "How many red cubes are there?", ("a" * 64, "b" * 64), ("one", "two"))

KINDS = ("good", "good", "good", "same", "truncated", "early_end", "no_close_tag", "lower", "empty")


def tagged(stage: str, inner: str) -> str:
    if stage == WHOLE:
        return "".join(f"{s.open_tag}{inner}{s.close_tag}" for s in STAGES)
    return f"{Stage(stage).open_tag}{inner}{Stage(stage).close_tag}"


def candidate(kind: str, stage: str, index: int, attempt: int = 0) -> Candidate:
    """A candidate with the given flaw."""
    inner = "the same" if kind == "same" else f"{stage} text {index} draw {attempt}"
    full = tagged(stage, inner)
    text, finish = full, Finish.STOP
    if kind == "truncated":
        text, finish = full[: full.rindex("<")], Finish.LENGTH
    elif kind == "early_end":
        text, finish = full[: full.rindex("<")], Finish.EARLY_END
    elif kind == "no_close_tag":
        text = full[: full.rindex("<")]
    elif kind == "lower":
        text = full.replace("CAPTION", "caption").replace("CONCLUSION", "Conclusion")
    elif kind == "empty":
        text = tagged(stage, " ")
    return Candidate(index, text, 10 + index + attempt, finish, tuple(text.encode()), seed=index)


@dataclass
class World:
    """Answers calls. The three functions say what happens to whom; the defaults are a healthy model."""

    kind: Callable[[str, int, int], str] = lambda stage, index, attempt: "good"
    fails: Callable[[CallSpec], bool] = lambda spec: False
    show: Callable[[CallSpec, tuple[int, ...]], Showing] = field(
        default=lambda spec, order: Showing(order, "hash", "ok", min(order), "words")
    )

    def outcome(self, spec: CallSpec) -> Call:
        if self.fails(spec):
            error = CallError("crash", f"engine failed at {spec.key}", attempts=3)
            return Call(spec, CallStatus.FAILED, error=error, usage=Usage(generated_tokens=3))
        if spec.kind is CallKind.GENERATE:
            drawn = tuple(
                candidate(self.kind(spec.stage, i, spec.attempt), spec.stage, i, spec.attempt) for i in spec.indices
            )
            usage = Usage(100, 50, sum(item.tokens for item in drawn), 1, 0.5)
            return Call(spec, CallStatus.DONE, drawn, usage=usage)
        order = tuple(ref.index for ref in spec.candidates)
        orders = (order, order[::-1]) if spec.swap else (order,)
        verdict = Verdict(tuple(self.show(spec, shown) for shown in orders))
        return Call(spec, CallStatus.DONE, verdict=verdict, usage=Usage(80, 60, 7, 0, 0.1))

    def run(
        self,
        policy: Policy,
        query: Query = QUERY,
        *,
        order: Random | None = None,
        idle: Callable[[], bool] = lambda: False,
        outcomes: int = 2000,
    ) -> tuple[Decision, list[Call]]:
        """Play the search to its end, or to that many outcomes; `order` draws who is next (None: as planned)."""
        rows: dict[str, Call] = {}
        for count in range(outcomes + 1):
            decision = plan(policy, query, shuffled(rows.values(), order), idle=idle())
            if not isinstance(decision, Next):
                return decision, list(rows.values())
            for spec in decision.calls:
                assert spec.key not in rows, "planned a call that stands already"
                rows[spec.key] = Call(spec)
            again = plan(policy, query, shuffled(rows.values(), order), idle=idle())
            assert again == Next(), "planning twice adds something"
            if count == outcomes:
                return decision, list(rows.values())
            waiting = [call for call in rows.values() if not call.ended]
            assert waiting, "waits for nothing"
            chosen = order.choice(waiting) if order else waiting[0]
            rows[chosen.spec.key] = self.outcome(chosen.spec)
        raise AssertionError("the search does not end")


def shuffled(calls: Sequence[Call], order: Random | None) -> list[Call]:
    rows = list(calls)
    if order:
        order.shuffle(rows)
    return rows


def random_world(seed: int, faults: float) -> World:
    """A world where each thing goes wrong with probability `faults`, fixed by `seed` and the thing's name."""

    def dice(*name: object) -> Random:
        return Random(f"{seed}/{name}")

    def kind(stage: str, index: int, attempt: int) -> str:
        at = dice(stage, index, attempt)
        return at.choice(KINDS) if at.random() < faults else "good"

    def show(spec: CallSpec, order: tuple[int, ...]) -> Showing:
        at = dice(spec.key, order)
        if at.random() < faults:
            return Showing(order, "hash", "unparseable", None, "mumble")
        if spec.kind is CallKind.CHECK:
            return Showing(order, "hash", "ok", at.choice((None, order[0])), "words")
        left = at.choice((0.1, 0.4, 0.5, 0.8))
        choice = None if left == 0.5 else order[0 if left > 0.5 else 1]
        return Showing(order, "hash", "ok", choice, "", (left, 1 - left))

    return World(kind, lambda spec: dice("fail", spec.key).random() < faults / 3, show)


@dataclass(frozen=True)
class Lab:
    """What the tests use, under one fixture."""

    query: Query = QUERY
    world: type[World] = World
    random_world: Callable[[int, float], World] = random_world
    candidate: Callable[..., Candidate] = candidate
    tagged: Callable[[str, str], str] = tagged

    @staticmethod
    def change(call: Call, **fields: object) -> Call:
        return replace(call, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab()
