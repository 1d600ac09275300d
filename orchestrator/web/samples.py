"""What the first lines of an input would ask: shown with the plan, so that a wrong column is seen before it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from orchestrator.intake.chunks import resolve_chunk
from orchestrator.intake.ingest import open_resolver, read_chunks, rules_for
from orchestrator.intake.keeper import BlobKeeper
from orchestrator.intake.records import AcceptedLine
from orchestrator.intake.resolve import ImageResolver, Verified
from orchestrator.intake.seen import SeenIds
from orchestrator.intake.validate import validate
from orchestrator.models import model_profile
from orchestrator.submit import JobRequest
from orchestrator.web.pages import Ask
from reasoning.decisions import Next
from reasoning.errors import BadInput
from reasoning.plan import plan
from reasoning.policy import Policy, PromptStyle
from reasoning.prompts import Prompt
from reasoning.render import render_generate
from storage.queries import to_record

SAMPLES = 5
LOOKED_AT = 200
"""Lines that are tried to find so many good ones."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One query as its search would begin."""

    line: int
    custom_id: str
    prompt: Prompt
    """Of the first call."""
    stage: str
    draws: int
    """Candidates drawn first, all from this prompt."""
    overrides: Mapping[str, Any]
    """Policy fields that the line sets for itself."""


def samples(ask: Ask, request: JobRequest, policy: Policy, object_key: str) -> list[Sample]:
    """The first good lines of a stored input, expanded by the very code that a search runs.

    Their images are stored, as those of any upload are, so that the page can show them.
    """
    use = ask.use
    rules = rules_for(request.line_format, policy, request.options, use.settings)
    style = _style(ask, request.model)
    found: list[Sample] = []
    with closing(use.objects.open(object_key)) as stream, SeenIds() as ids:
        lines = islice(validate(read_chunks(stream), rules, ids.first_use), LOOKED_AT)
        good = ((number, line) for number, line in lines if isinstance(line, AcceptedLine))
        with open_resolver(
            BlobKeeper(use.db, use.objects, request.project_id, use.now), use.settings, Verified()
        ) as resolver:
            for number, line, images in _resolved(good, resolver):
                found.append(_sample(number, line, images, policy, style))
                if len(found) == SAMPLES:
                    break
    return found


def _resolved(
    lines: Iterator[tuple[int, AcceptedLine]], resolver: ImageResolver
) -> Iterator[tuple[int, AcceptedLine, list[str]]]:
    """Lines whose images can be used, one at a time; an input that breaks off ends them."""
    try:
        for number, line in lines:
            yield from resolve_chunk([(number, line)], resolver).accepted
    except BadInput:
        return


def _sample(number: int, line: AcceptedLine, images: list[str], policy: Policy, style: PromptStyle) -> Sample:
    query = to_record(line.custom_id, line.body(images))
    own = policy.with_overrides(line.policy)
    decision = plan(own, query, ())
    calls = decision.calls if isinstance(decision, Next) else ()
    drawings = [render_generate(own, query, spec, {}, style) for spec in calls]
    draws = sum(len(drawing.indices) for drawing in drawings)
    return Sample(number, line.custom_id, drawings[0].prompt, calls[0].stage, draws, line.policy)


def _style(ask: Ask, model: str) -> PromptStyle:
    """The wording that a worker of the model asks for, else the model's own, else the general one."""
    snapshot = ask.web.snapshots.get(ask.viewer.project_id, ask.use.now())
    told = (worker.row.engine.get("prompts") for worker in snapshot.workers if worker.row.model == model)
    found: PromptStyle | None = next((style for style in told if style), None)
    return found or model_profile(model).prompts or "standard"
