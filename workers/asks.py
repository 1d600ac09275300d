"""What a call asks of an engine: requests in its hand, and how their results become the call's outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from reasoning.policy import Policy
from reasoning.records import Candidate, Usage, Verdict
from storage.workload import Work
from workers.engine.protocol import ImageLoader, Sampling


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to: candidates, or a verdict."""

    usage: Usage
    candidates: tuple[Candidate, ...] = ()
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What the worker adds to every request of a call."""

    load_image: ImageLoader
    cancelled: Callable[[], bool]
    deadline: float | None
    """`time.monotonic()` value."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Requests of one call in the engine's hand."""

    futures: Sequence[Future[Any]]
    read: Callable[[Sequence[Any]], Outcome]
    """From the results in the order of the futures to the outcome."""


def request_id(work: Work, place: int = 0) -> str:
    """Names a request the same in every run of the same job: engines may key deterministic behaviour on it."""
    name = f"{work.query.custom_id}/{work.call.spec.key}"
    return f"{name}#{place}" if place else name


def group(work: Work) -> str:
    """Names the query to the engine: its calls share image and prefix caches."""
    return f"{work.call.job_id}/{work.call.query_id}"


def sampling(policy: Policy) -> Sampling:
    """The policy's sampling settings as the engine takes them."""
    return Sampling(
        temperature=policy.temperature, top_p=policy.top_p, top_k=policy.top_k, max_tokens=policy.max_tokens
    )
