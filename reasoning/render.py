"""From a call row to what an engine is asked: prompts, prefixes, stops and seeds, all pure.

A worker loads the query, the call, and the calls that `needed_keys` names; everything else follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reasoning import grammar, prompts, seeds
from reasoning.judging import judge_of
from reasoning.policy import Judge, Policy, PromptStyle
from reasoning.prompts import Prompt
from reasoning.records import WHOLE, Call, CallSpec, Query, Ref, find, stage_of
from reasoning.stages import Stage

JUDGE_STOP = ""
"""Judges and pre-checks that write words end by themselves: no stop text."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A GENERATE call, ready for an engine: candidate `indices[k]` draws from `seeds[k]`."""

    prompt: Prompt
    """`prompt.prefix` is the kept text that the candidates continue."""
    prefix_ids: tuple[int, ...]
    """The prefix as token ids; empty unless every kept candidate has them and goes on exactly as written."""
    stop: str
    indices: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Judging:
    """One showing of a COMPARE or CHECK call, ready for an engine."""

    prompt: Prompt
    order: tuple[int, ...]
    """Candidate indices in the order shown."""
    seed: int
    """Seed of the words, where the judge writes words."""
    judge: Judge


def needed_keys(spec: CallSpec) -> frozenset[str]:
    """Keys of the calls whose outcomes rendering `spec` reads."""
    return frozenset(ref.call for ref in (*spec.path, *spec.candidates))


def render_generate(
    policy: Policy, query: Query, spec: CallSpec, calls: Mapping[str, Call], style: PromptStyle
) -> Drawing:
    """What a GENERATE call asks. `style` is the model's own and yields to `policy.prompts`.

    Raises:
        InvariantBroken: a candidate on the path is not among `calls`.
    """
    prefix, prefix_ids = _prefix(policy, spec.path, calls)
    stage = stage_of(spec) or Stage.CONCLUSION
    draw = [
        seeds.candidate(policy.seed, query.custom_id, spec.stage, spec.round, index, spec.attempt)
        for index in spec.indices
    ]
    prompt = prompts.policy_prompt(query, policy.prompts or style, prefix)
    return Drawing(prompt, prefix_ids, stage.close_tag, spec.indices, tuple(draw))


def render_compare(
    policy: Policy,
    query: Query,
    spec: CallSpec,
    calls: Mapping[str, Call],
    style: PromptStyle,
    *,
    judge: Judge | None = None,
) -> tuple[Judging, ...]:
    """What a COMPARE call asks: one showing, or one for each order when `spec.swap`.

    `judge` overrides the policy's where an engine cannot read labels.

    Raises:
        InvariantBroken: a candidate referred to is not among `calls`.
    """
    judge = judge or judge_of(policy)
    kept = _kept(spec.path, calls)
    inner = {ref.index: _inner(ref, calls) for ref in spec.candidates}
    first, second = (ref.index for ref in spec.candidates)
    orders = ((first, second), (second, first)) if spec.swap else ((first, second),)
    return tuple(
        Judging(
            prompts.compare_prompt(
                query, policy.prompts or style, judge, spec.stage, kept, (inner[order[0]], inner[order[1]])
            ),
            order,
            seeds.judge_words(policy.seed, query.custom_id, spec.key, place),
            judge,
        )
        for place, order in enumerate(orders)
    )


def render_check(policy: Policy, query: Query, spec: CallSpec, calls: Mapping[str, Call]) -> Judging:
    """What a CHECK call asks: the published pre-check of one reasoning, text only.

    Raises:
        InvariantBroken: a candidate referred to is not among `calls`.
    """
    (ref,) = spec.candidates
    prompt = prompts.check_prompt(query, _kept(spec.path, calls).get(Stage.CAPTION, ""), _inner(ref, calls))
    return Judging(prompt, (ref.index,), seeds.judge_words(policy.seed, query.custom_id, spec.key, 0), "words")


def _prefix(policy: Policy, path: tuple[Ref, ...], calls: Mapping[str, Call]) -> tuple[str, tuple[int, ...]]:
    texts: list[str] = []
    ids: list[int] = []
    exact = True
    for ref in path:
        candidate = find(ref, calls)
        text, as_written = candidate.text, True
        if policy.mode == "strict":
            text, as_written = grammar.continuation(candidate.text, calls[ref.call].spec.stage)
        texts.append(text)
        ids.extend(candidate.token_ids)
        exact = exact and as_written and bool(candidate.token_ids)
    return "".join(texts), tuple(ids) if exact else ()


def _kept(path: tuple[Ref, ...], calls: Mapping[str, Call]) -> dict[Stage, str]:
    stages = {ref: calls[ref.call].spec.stage for ref in path if ref.call in calls}
    return {Stage(stage): _inner(ref, calls) for ref, stage in stages.items() if stage != WHOLE}


def _inner(ref: Ref, calls: Mapping[str, Call]) -> str:
    return grammar.read(find(ref, calls).text, calls[ref.call].spec.stage).inner
