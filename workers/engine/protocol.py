"""The seam between tasks and engines: requests in, results out, many at once.

Every engine (`scripted`, `transformers`, `openai`) satisfies `Engine` and passes the same contract tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from reasoning.prompts import Prompt
from reasoning.records import Candidate, Usage


def never() -> bool:
    """The cancel flag of a request that nobody cancels."""
    return False


ImageLoader = Callable[[str], bytes]
"""Content hash to encoded image bytes. Raises KeyError when the image is not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn. Temperature 0 is greedy; top_k 0 is off."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What every request has in common.

    `deadline` is a `time.monotonic()` value checked at every step; `cancelled` is polled at every step.
    `group` names the query: requests of one group share image and prefix caches and are freed together.
    """

    call_id: str
    prompt: Prompt
    load_image: ImageLoader
    group: str = ""
    deadline: float | None = None
    cancelled: Callable[[], bool] = never


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate(Request):
    """Draw `len(seeds)` candidates that continue `prompt.prefix`; candidate k gets `indices[k]` and `seeds[k]`.

    Generation stops at `stop` (kept in the text), at `sampling.max_tokens`, or at the model's end of turn.
    `prefix_ids` are the token ids of the prefix if this engine wrote it, else empty.
    """

    indices: tuple[int, ...]
    seeds: tuple[int, ...]
    stop: str
    sampling: Sampling
    prefix_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choose(Request):
    """Read the probabilities of `labels` (single words) as the next token after the prompt."""

    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """Candidates in the order of the request's `indices`."""

    candidates: tuple[Candidate, ...]
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Probability of each label in the order of the request, normalised over the labels (sums to 1)."""

    probabilities: tuple[float, ...]
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine tells of itself; goes into the worker's heartbeat row."""

    kind: str
    """`scripted`, `transformers` or `openai`."""
    model: str
    revision: str
    device: str
    dtype: str
    slots: int
    """Requests that may be in hand at once."""
    context: int
    """Tokens of prompt and answer together."""
    prompts: str
    """Prompt style that the model asks for: `standard`, `tuned` or `compact`."""
    has_labels: bool
    """Whether `Choose` works here; without it judges fall back to words."""
    keeps_ids: bool
    """Whether candidates carry token ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Totals since start; monotonic. Names and units are those exported to Prometheus."""

    values: Mapping[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """Runs a model. Thread-safe: many task threads submit to one engine.

    Errors travel in the future: `ModelError` (code such as `context_overflow`, `bad_image`, `deadline`,
    `cancelled`, `out_of_memory`, `crash`) or `Transient`. Greedy results are exactly repeatable.
    """

    @property
    def info(self) -> EngineInfo: ...

    def generate(self, request: Generate) -> Future[Generated]:
        """Queue the request; blocks only for back-pressure."""
        ...

    def choose(self, request: Choose) -> Future[Chosen]:
        """Queue the request; blocks only for back-pressure."""
        ...

    def counters(self) -> Counters: ...

    def close(self) -> None:
        """Finish nothing more, fail what is in hand with `Transient`, release the device."""
        ...
