"""Counters of an engine that runs a model in process: what it did and what it saved."""

from __future__ import annotations

from dataclasses import dataclass, fields

from reasoning.records import Usage


@dataclass(slots=True)
class Tally:
    """Totals since start. Written by the loop thread alone; a reader may see a step half counted."""

    requests: int = 0
    errors: int = 0
    steps: int = 0
    """Forward passes."""
    row_steps: int = 0
    """Tokens fed for running candidates; divided by steps: the mean number that ran."""
    merged_steps: int = 0
    """Of these, how many needed no row of their own, as a sibling had drawn the same tokens so far."""
    row_places: int = 0
    """Candidates that could have run in these steps; `row_steps / row_places` is the batch fill."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens whose keys and values were found."""
    generated_tokens: int = 0
    discarded_tokens: int = 0
    """Tokens of rows that were cancelled, late or put back."""
    judged_tokens: int = 0
    """Prompt tokens of choices."""
    vision_calls: int = 0
    """Images that passed the vision tower."""
    vision_batches: int = 0
    picture_hits: int = 0
    prefix_hits: int = 0
    twig_hits: int = 0
    """Paths that went on from a kept candidate without computing it again."""
    preemptions: int = 0
    out_of_memory: int = 0
    crashes: int = 0
    prefill_seconds: float = 0.0
    """Forward passes that held prompt tokens."""
    decode_seconds: float = 0.0
    """Forward passes of running rows alone."""
    sample_seconds: float = 0.0
    vision_seconds: float = 0.0

    def finished(self, usage: Usage, *, judged: bool) -> None:
        """Count a request that was answered."""
        self.requests += 1
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.generated_tokens += usage.generated_tokens
        self.judged_tokens += usage.prompt_tokens if judged else 0

    def values(self) -> dict[str, float]:
        """All counters by name."""
        return {f.name: float(getattr(self, f.name)) for f in fields(self)}
