"""The search of the baselines over an engine: the next call of a query goes out when its last one is in.

It compares what `Batched` compares, every pair once. What the product does instead (`plan()`: both orders, equal
candidates merged) is measured beside it, by `benchmarks.search_in_process`.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.engine_work import Work, ask, compare
from reasoning import seeds
from reasoning.prompts import LABELS
from reasoning.records import Candidate, Query
from reasoning.stages import STAGES, Stage
from workers.asks import sampling
from workers.engine.protocol import Choose, Chosen, Engine, Generate, Generated


class Search:
    """One query: draw, compare in a bracket, go on from the winner."""

    def __init__(self, runner: Runner, query: Query) -> None:
        self._runner, self._query = runner, query
        self._ids: tuple[int, ...] = ()
        self._kept: dict[Stage, str] = {}
        self._pool: list[Candidate] = []
        self._draw()

    @property
    def _stage(self) -> Stage:
        return STAGES[len(self._kept)]

    def _draw(self) -> None:
        runner, query, stage = self._runner, self._query, self._stage
        request = Generate(
            call_id=f"{query.custom_id}/{stage}",
            prompt=ask(query, " ".join(self._kept.values())),
            load_image=runner.work.pictures.__getitem__,
            group=query.custom_id,
            indices=tuple(range(runner.candidates)),
            seeds=tuple(seeds.candidate(0, query.custom_id, stage, 0, k) for k in range(runner.candidates)),
            stop=stage.close_tag,
            sampling=sampling(runner.work.policy),
            prefix_ids=self._ids,
        )
        runner.when(runner.engine.generate(request), self._drawn)

    def _drawn(self, result: Generated) -> None:
        self._pool = list(result.candidates)
        if self._runner.judge:
            self._round()
        else:
            self._keep(self._pool[0])

    def _round(self) -> None:
        if len(self._pool) == 1:
            self._keep(self._pool[0])
            return
        pairs = [(self._pool[k], self._pool[k + 1]) for k in range(0, len(self._pool) - 1, 2)]
        left = self._pool[len(self._pool) - len(self._pool) % 2 :]
        wanted = len(left) + len(pairs)

        def seen(pair: tuple[Candidate, Candidate], chosen: Chosen) -> None:
            left.append(pair[0] if chosen.probabilities[0] >= chosen.probabilities[1] else pair[1])
            if len(left) == wanted:
                self._pool = left
                self._round()

        for pair in pairs:
            request = Choose(
                call_id="compare",
                prompt=compare(self._query, self._stage, self._kept, (pair[0].text, pair[1].text)),
                load_image=self._runner.work.pictures.__getitem__,
                group=self._query.custom_id,
                labels=LABELS,
            )
            self._runner.when(self._runner.engine.choose(request), partial(seen, pair))

    def _keep(self, winner: Candidate) -> None:
        self._ids += winner.token_ids
        self._kept[self._stage] = winner.text
        if len(self._kept) == len(STAGES):
            self._runner.finished()
        else:
            self._draw()


class Runner:
    """Keeps `flight` searches going over one engine."""

    def __init__(self, engine: Engine, work: Work, *, candidates: int, judge: bool, flight: int) -> None:
        self.engine, self.work, self.candidates, self.judge = engine, work, candidates, judge
        self._flight = flight
        self._events: queue.SimpleQueue[tuple[Callable[[Any], None], Any]] = queue.SimpleQueue()
        self._left: list[Query] = []
        self._running = 0

    def when(self, future: Any, then: Callable[[Any], None]) -> None:
        """Call `then` with the result, on the driver's thread."""
        future.add_done_callback(lambda f: self._events.put((then, f.result())))

    def finished(self) -> None:
        """One search ended: start the next."""
        self._running -= 1
        self._start()

    def run(self, queries: Sequence[Query]) -> None:
        """Answer all queries."""
        self._left = list(queries)
        for _ in range(min(self._flight, len(queries))):
            self._start()
        while self._running:
            then, result = self._events.get()
            then(result)

    def _start(self) -> None:
        if self._left:
            self._running += 1
            Search(self, self._left.pop(0))
