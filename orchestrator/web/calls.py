"""One call as it went to the engine, and one match with both texts side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from starlette.responses import Response

from orchestrator.api.errors import NotFound
from orchestrator.web import diff, thinking
from orchestrator.web.pages import Ask
from orchestrator.web.queries import owner, query_of, trace_of
from reasoning.errors import InvariantBroken
from reasoning.policy import Policy, PromptStyle
from reasoning.prompts import Prompt
from reasoning.records import Call, CallKind, Query
from reasoning.render import render_check, render_compare, render_generate
from storage import overview, planning, questions
from storage.queries import to_record


@dataclass(frozen=True, slots=True)
class Sent:
    """A prompt as it was sent."""

    prompt: Prompt
    order: Sequence[int]
    seeds: Sequence[tuple[int, int]]
    """Candidate index and the seed of its noise."""
    proven: bool | None
    """Whether its hash is the one that the verdict recorded; None where none was recorded."""


def call_page(ask: Ask) -> Response:
    """A call: what was asked, with which settings, and what came of it."""
    with ask.use.db.read() as conn:
        row = query_of(ask, conn)
        job = owner(ask, conn, row)
        calls = questions.calls(conn, row.id)
        own = next((call for call in calls if call.id == ask.number("call_id")), None)
        if own is None:
            raise NotFound("call", ask.part("call_id"))
        workers = overview.workers_named(conn, [own.worker] if own.worker else [])
    policy = Policy.from_mapping(job.policy).with_overrides(row.body.get("policy") or {})
    records = {record.spec.key: record for record in map(planning.to_record, calls)}
    worker = workers.get(own.worker or "")
    style, sent = _sent(policy, to_record(row.custom_id, row.body), records, own.key, worker)
    return ask.page(
        "call.html",
        job=job,
        query=row,
        call=own,
        policy=policy,
        worker=worker,
        style=style,
        sent=sent,
        record=records[own.key],
    )


def verdict_page(ask: Ask) -> Response:
    """One match: both texts with their differences, what was shown, what the judge said."""
    with ask.use.db.read() as conn:
        row = query_of(ask, conn)
        job = owner(ask, conn, row)
        calls = questions.calls(conn, row.id)
    policy, trace = trace_of(ask, job, row, calls)
    stage = thinking.view(trace, calls).stage(ask.part("stage"))
    number = ask.number("number")
    if stage is None or number >= len(stage.verdicts):
        raise NotFound("match", f"{ask.part('stage')} {number}")
    verdict = stage.verdicts[number]
    return ask.page(
        "verdict.html",
        job=job,
        query=row,
        policy=policy,
        stage=stage,
        verdict=verdict,
        diff=_between(stage, *verdict.pair),
        ids={call.key: call.id for call in calls},
        pick=None,
    )


def diff_page(ask: Ask) -> Response:
    """Any two candidates of a stage with their differences."""
    with ask.use.db.read() as conn:
        row = query_of(ask, conn)
        job = owner(ask, conn, row)
        calls = questions.calls(conn, row.id)
    policy, trace = trace_of(ask, job, row, calls)
    stage = thinking.view(trace, calls).stage(ask.part("stage"))
    if stage is None:
        raise NotFound("stage", ask.part("stage"))
    indices = sorted({card.index for card in stage.cards if card.raw})
    if len(indices) < 2:
        raise NotFound("pair of candidates in stage", stage.name)
    pair = tuple(int(value) if value.isdigit() else -1 for value in (ask.query.get("a", ""), ask.query.get("b", "")))
    chosen = pair if set(pair) <= set(indices) and pair[0] != pair[1] else (indices[0], indices[1])
    return ask.page(
        "verdict.html",
        job=job,
        query=row,
        policy=policy,
        stage=stage,
        verdict=None,
        diff=_between(stage, *chosen),
        ids={},
        pick=(indices, chosen),
    )


@dataclass(frozen=True, slots=True)
class Between:
    """Two candidates and the difference of their texts."""

    cards: tuple[thinking.Card, thinking.Card]
    diff: diff.Diff


def _between(stage: thinking.StageView, first: int, second: int) -> Between:
    cards = (_newest(stage, first), _newest(stage, second))
    return Between(cards, diff.word_diff(cards[0].text, cards[1].text))


def _newest(stage: thinking.StageView, index: int) -> thinking.Card:
    cards = [card for card in stage.cards if card.index == index and card.raw]
    if not cards:
        raise NotFound("candidate", index)
    return max(cards, key=lambda card: (card.status != "failed", card.attempt))


def _sent(
    policy: Policy, query: Query, calls: dict[str, Call], key: str, worker: Any
) -> tuple[PromptStyle, list[Sent]]:
    """The prompts of a call, in the style of the engine that ran it.

    A verdict's recorded hash proves the style; without one, the worker's own is taken, or `standard`.
    """
    wanted = worker.engine.get("prompts") if worker is not None else None
    styles = sorted(get_args(PromptStyle), key=lambda style: style != (policy.prompts or wanted or "standard"))
    tries = [(style, _render(policy, query, calls, key, style)) for style in styles]
    proven = next((each for each in tries if each[1] and all(sent.proven for sent in each[1])), None)
    return proven or tries[0]


def _render(policy: Policy, query: Query, calls: dict[str, Call], key: str, style: PromptStyle) -> list[Sent]:
    call = calls[key]
    try:
        if call.spec.kind is CallKind.GENERATE:
            drawing = render_generate(policy, query, call.spec, calls, style)
            return [Sent(drawing.prompt, (), tuple(zip(drawing.indices, drawing.seeds, strict=True)), None)]
        if call.spec.kind is CallKind.CHECK:
            judgings: Sequence[Any] = (render_check(policy, query, call.spec, calls),)
        else:
            judgings = render_compare(policy, query, call.spec, calls, style)
    except InvariantBroken:
        return []
    hashes = {showing.prompt_hash for showing in call.verdict.showings} if call.verdict else set()
    return [
        Sent(judging.prompt, judging.order, ((judging.order[0], judging.seed),), _proven(judging.prompt, hashes))
        for judging in judgings
    ]


def _proven(prompt: Prompt, hashes: set[str]) -> bool | None:
    return prompt.digest in hashes if hashes else None
