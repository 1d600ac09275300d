"""COMPARE and CHECK calls: a judge over an engine, by the probabilities of labels or by words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, cast

from reasoning.judging import judge_of
from reasoning.policy import PromptStyle
from reasoning.records import Showing, Usage, Verdict
from reasoning.render import JUDGE_STOP, Judging, render_check, render_compare
from reasoning.replies import read_check, read_labels, read_words_comparison
from storage.workload import Work
from workers.asks import Asked, Outcome, Terms, group, request_id, sampling
from workers.engine.protocol import Choose, Chosen, Engine, Generate, Generated

ReadReply = Callable[[Judging, Any], Showing]


def ask_compare(engine: Engine, work: Work, terms: Terms) -> Asked:
    """Hand a COMPARE call to the engine, both orders at once when the call asks for both.

    An engine without labels is asked for words.

    Raises:
        InvariantBroken: a candidate referred to is not stored.
    """
    judge = judge_of(work.policy) if engine.info.has_labels else "words"
    style = cast("PromptStyle", engine.info.prompts)
    judgings = render_compare(work.policy, work.query, work.call.spec, work.siblings, style, judge=judge)
    if judge == "labels":
        return _asked(judgings, [_choose(engine, work, terms, place, it) for place, it in enumerate(judgings)], _labels)
    futures = [_write(engine, work, terms, place, judging) for place, judging in enumerate(judgings)]
    return _asked(judgings, futures, partial(_words, work))


def ask_check(engine: Engine, work: Work, terms: Terms) -> Asked:
    """Hand a CHECK call to the engine: always words, as published.

    Raises:
        InvariantBroken: the candidate is not stored.
    """
    judging = render_check(work.policy, work.query, work.call.spec, work.siblings)
    return _asked((judging,), [_write(engine, work, terms, 0, judging)], partial(_check, work))


def _choose(engine: Engine, work: Work, terms: Terms, place: int, judging: Judging) -> Future[Chosen]:
    return engine.choose(
        Choose(
            call_id=request_id(work, place),
            prompt=judging.prompt,
            load_image=terms.load_image,
            group=group(work),
            deadline=terms.deadline,
            cancelled=terms.cancelled,
            labels=judging.prompt.labels,
        )
    )


def _write(engine: Engine, work: Work, terms: Terms, place: int, judging: Judging) -> Future[Generated]:
    return engine.generate(
        Generate(
            call_id=request_id(work, place),
            prompt=judging.prompt,
            load_image=terms.load_image,
            group=group(work),
            deadline=terms.deadline,
            cancelled=terms.cancelled,
            indices=(0,),
            seeds=(judging.seed,),
            stop=JUDGE_STOP,
            sampling=sampling(work.policy),
        )
    )


def _asked(judgings: Sequence[Judging], futures: Sequence[Future[Any]], read: ReadReply) -> Asked:
    return Asked(futures, partial(_verdict, judgings, read))


def _verdict(judgings: Sequence[Judging], read: ReadReply, results: Sequence[Any]) -> Outcome:
    showings = tuple(read(judging, result) for judging, result in zip(judgings, results, strict=True))
    usage = sum((result.usage for result in results), Usage())
    return Outcome(usage, verdict=Verdict(showings))


def _labels(judging: Judging, result: Chosen) -> Showing:
    return read_labels(result.probabilities, order=judging.order, prompt_hash=judging.prompt.digest)


def _words(work: Work, judging: Judging, result: Generated) -> Showing:
    words = result.candidates[0].text
    digest = judging.prompt.digest
    return read_words_comparison(words, work.policy.mode, order=judging.order, prompt_hash=digest)


def _check(work: Work, judging: Judging, result: Generated) -> Showing:
    words = result.candidates[0].text
    return read_check(words, work.policy.mode, index=judging.order[0], prompt_hash=judging.prompt.digest)
