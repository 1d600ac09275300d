"""GENERATE calls: the candidates of one stage, drawn together from one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from reasoning.policy import PromptStyle
from reasoning.render import render_generate
from storage.workload import Work
from workers.asks import Asked, Outcome, Terms, group, request_id, sampling
from workers.engine.protocol import Engine, Generate, Generated


def ask_generate(engine: Engine, work: Work, terms: Terms) -> Asked:
    """Hand a GENERATE call to the engine.

    Raises:
        InvariantBroken: a candidate on the path is not stored.
    """
    style = cast("PromptStyle", engine.info.prompts)
    drawing = render_generate(work.policy, work.query, work.call.spec, work.siblings, style)
    request = Generate(
        call_id=request_id(work),
        prompt=drawing.prompt,
        load_image=terms.load_image,
        group=group(work),
        deadline=terms.deadline,
        cancelled=terms.cancelled,
        indices=drawing.indices,
        seeds=drawing.seeds,
        stop=drawing.stop,
        sampling=sampling(work.policy),
        prefix_ids=drawing.prefix_ids,
    )
    return Asked((engine.generate(request),), _read)


def _read(results: Sequence[Any]) -> Outcome:
    generated: Generated = results[0]
    return Outcome(generated.usage, candidates=generated.candidates)
