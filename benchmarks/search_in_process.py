"""Whole searches over one engine without queue or database: the same plan, rendering and judging as in service."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from reasoning.decisions import Answer, Decision, Failed, Next
from reasoning.plan import plan
from reasoning.policy import Policy
from reasoning.records import Call, CallKind, CallSpec, CallStatus, Query
from storage.calls import Asker, Claimed
from storage.workload import Work
from workers.asks import Asked, Outcome, Terms
from workers.engine.protocol import Engine, ImageLoader, never
from workers.generate import ask_generate
from workers.judge import ask_check, ask_compare

_ASK = {CallKind.GENERATE: ask_generate, CallKind.COMPARE: ask_compare, CallKind.CHECK: ask_check}


@dataclass(slots=True)
class Searched:
    """One query with all its calls and what came of it."""

    query: Query
    calls: dict[str, Call] = field(default_factory=dict)
    decision: Answer | Failed | None = None


class InProcess:
    """Keeps `flight` searches going over one engine; errors of the engine are raised."""

    def __init__(self, engine: Engine, load_image: ImageLoader, *, flight: int) -> None:
        self._engine, self._flight = engine, flight
        self._terms = Terms(load_image=load_image, cancelled=never, deadline=None)
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._running = 0

    def run(self, policy: Policy, queries: Sequence[Query]) -> list[Searched]:
        """Answer all queries; results in their order."""
        searched = [Searched(query) for query in queries]
        waiting = iter(searched)
        for one in islice(waiting, self._flight):
            self._advance(policy, one)
        while self._running:
            self._events.get()()
            if self._running < self._flight:
                for one in islice(waiting, 1):
                    self._advance(policy, one)
        return searched

    def _advance(self, policy: Policy, one: Searched) -> None:
        decision: Decision = plan(policy, one.query, list(one.calls.values()))
        if not isinstance(decision, Next):
            one.decision = decision
            return
        for spec in decision.calls:
            one.calls[spec.key] = Call(spec)
            self._ask(policy, one, spec)

    def _ask(self, policy: Policy, one: Searched, spec: CallSpec) -> None:
        asker = Asker(one.query.custom_id, {}, None, policy.digest, "batch")
        claimed = Claimed(0, hash(one.query.custom_id), "measured", self._engine.info.model, spec, 1, 0, asker)
        work = Work(claimed, policy, one.query, "batch", None, one.calls)
        asked = _ASK[spec.kind](self._engine, work, self._terms)
        self._running += 1
        left = [len(asked.futures)]

        def ended(_future: Any) -> None:
            self._events.put(count)

        def count() -> None:
            left[0] -= 1
            if not left[0]:
                self._running -= 1
                self._settle(policy, one, spec, asked)

        for future in asked.futures:
            future.add_done_callback(ended)

    def _settle(self, policy: Policy, one: Searched, spec: CallSpec, asked: Asked) -> None:
        outcome: Outcome = asked.read([future.result() for future in asked.futures])
        one.calls[spec.key] = Call(spec, CallStatus.DONE, outcome.candidates, outcome.verdict, None, outcome.usage)
        self._advance(policy, one)
