"""What a finished job hands back."""

from __future__ import annotations

import torch

from reasoning.records import Candidate, Finish, Usage
from workers.engine.encode import Encoder
from workers.engine.jobs import Job, Row
from workers.engine.protocol import Chosen, Generate, Generated


def append(row: Row, token: int, ends: frozenset[int], encoder: Encoder) -> Finish | None:
    """Give the row its next token; how it ended, if it did. `ends` are the tokens that end a turn."""
    request = row.job.request
    stop = request.stop if isinstance(request, Generate) else ""
    if token in ends:
        return Finish.EARLY_END if stop else Finish.STOP
    row.tokens.append(token)
    if token in row.job.enders and encoder.closes(row.tokens, stop):
        return Finish.STOP
    return Finish.LENGTH if len(row.tokens) >= row.limit else None


def candidates(row: Row, finish: Finish, encoder: Encoder) -> list[Candidate]:
    """One per member: the row's text, cut after the end tag; its ids are kept whole, as the model goes on from them."""
    text = encoder.text(row.tokens)
    request = row.job.request
    if finish is Finish.STOP and isinstance(request, Generate) and request.stop:
        text = text[: text.index(request.stop) + len(request.stop)]
    ids = tuple(row.tokens)
    return [
        Candidate(index=index, text=text, tokens=len(ids), finish=finish, token_ids=ids, seed=seed)
        for index, seed in row.members
    ]


def generated(job: Job) -> Generated:
    """All candidates in the order of the request."""
    indices = job.request.indices if isinstance(job.request, Generate) else ()
    found = tuple(job.done[index] for index in indices)
    return Generated(candidates=found, usage=_usage(job, sum(c.tokens for c in found)))


def chosen(job: Job, logits: torch.Tensor) -> Chosen:
    """Probability of each label: of the tokens that may begin it, normalised over the labels."""
    probabilities = torch.softmax(logits.double(), dim=-1)
    weights = [float(probabilities[ids].sum()) for ids in job.label_ids]
    total = sum(weights)
    even = 1.0 / len(weights)
    shares = tuple(weight / total if total > 0 else even for weight in weights)
    return Chosen(probabilities=shares, usage=_usage(job, 0))


def _usage(job: Job, tokens: int) -> Usage:
    return Usage(
        prompt_tokens=len(job.layout) if job.layout else 0,
        cached_tokens=job.cached_tokens,
        generated_tokens=tokens,
        vision_calls=job.vision_calls,
        seconds=job.seconds,
        image_tokens=job.layout.image_tokens if job.layout else 0,
    )
