"""The policy: the frozen search settings of a job, read from JSON and refused when anything in it is unknown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, get_args

from reasoning.errors import BadInput, nearest

Mode = Literal["strict", "published"]
Judge = Literal["labels", "words"]
FanOut = Literal["auto", "together", "apart"]
OnLimit = Literal["degrade", "fail"]
PromptStyle = Literal["standard", "tuned", "compact"]

MAX_CANDIDATES = 64
"""More candidates than this at one stage is taken for a typing error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a query is searched. Field names are the JSON keys.

    The defaults of temperature, top_p and max_tokens are those of the published code; top_k 50 is what
    its transformers version applied without being asked (reference `generate` default).
    """

    strategy: str = "stage_beam"
    """Name of a file under `reasoning/strategies/`."""
    mode: Mode = "strict"
    """`strict` fixes the known defects of the published algorithm; `published` reproduces it."""
    candidates: int = 4
    """Candidates per stage (N)."""
    judge: Judge = "labels"
    """`labels` reads the probabilities of the two labels; `words` (always in published mode) writes its reason."""
    judge_model: str | None = None
    """Model that judges; None means the model that answers."""
    prompts: PromptStyle | None = None
    """Wording of the prompts; None means the style that the model asks for."""
    temperature: float = 0.6
    top_p: float = 0.9
    top_k: int = 50
    """0 switches the top-k filter off."""
    max_tokens: int = 2048
    """New tokens at most, per candidate and stage."""
    retries: int = 2
    """How often a candidate that was truncated or ended early is drawn again (strict mode)."""
    judge_retries: int = 1
    """How often an unparseable verdict is asked for again (strict mode, `words` judge)."""
    swap_check: bool = True
    """Strict mode: every pair is judged in both orders."""
    fan_out: FanOut = "auto"
    """Whether the candidates of a stage go as one call, one call each, or as the load suggests."""
    token_budget: int | None = None
    """Generated tokens per query, judging included, after which nothing new begins; None means no limit.

    Calls in hand run to their end, so that the sum, and with it the answer, does not depend on their order.
    """
    deadline_s: float | None = None
    """Seconds from the first call of a query to its answer; None means no limit."""
    on_limit: OnLimit = "degrade"
    """What happens at a limit: answer with the best path so far, or fail."""
    seed: int = 0
    """Seed of the job; each candidate draws from a seed derived from it."""

    def __post_init__(self) -> None:
        for name, check, advice in _RANGES:
            if not check(getattr(self, name)):
                raise BadInput(
                    f"policy.{name} is {getattr(self, name)!r}; {advice}", code="invalid_policy", field=f"policy.{name}"
                )

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Self:
        """Build a policy from decoded JSON; missing fields take their defaults.

        Raises:
            BadInput: unknown field (with the nearest valid name), wrong type or a value out of range.
        """
        return replace(cls(), **checked_fields(data))

    def with_overrides(self, data: Mapping[str, Any]) -> Self:
        """This policy with some fields changed, as a line of an input file may ask for. Raises BadInput."""
        return replace(self, **checked_fields(data)) if data else self

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values under the field names; `from_mapping` reads it back."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the canonical JSON: equal policies have equal digests."""
        text = json.dumps(self.to_mapping(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


_TYPES: dict[str, tuple[type, ...]] = {
    "strategy": (str,),
    "mode": (str,),
    "candidates": (int,),
    "judge": (str,),
    "judge_model": (str, type(None)),
    "prompts": (str, type(None)),
    "temperature": (int, float),
    "top_p": (int, float),
    "top_k": (int,),
    "max_tokens": (int,),
    "retries": (int,),
    "judge_retries": (int,),
    "swap_check": (bool,),
    "fan_out": (str,),
    "token_budget": (int, type(None)),
    "deadline_s": (int, float, type(None)),
    "on_limit": (str,),
    "seed": (int,),
}

_RANGES: tuple[tuple[str, Any, str], ...] = (
    ("mode", lambda v: v in get_args(Mode), "use one of: strict, published"),
    ("judge", lambda v: v in get_args(Judge), "use one of: labels, words"),
    ("prompts", lambda v: v is None or v in get_args(PromptStyle), "use one of: standard, tuned, compact, null"),
    ("fan_out", lambda v: v in get_args(FanOut), "use one of: auto, together, apart"),
    ("on_limit", lambda v: v in get_args(OnLimit), "use one of: degrade, fail"),
    ("candidates", lambda v: 1 <= v <= MAX_CANDIDATES, f"use 1 to {MAX_CANDIDATES}"),
    ("temperature", lambda v: 0.0 <= v <= 5.0, "use 0 (greedy) to 5"),
    ("top_p", lambda v: 0.0 < v <= 1.0, "use a value above 0 and up to 1"),
    ("top_k", lambda v: v >= 0, "use 0 (off) or more"),
    ("max_tokens", lambda v: 1 <= v <= 1_000_000, "use 1 to 1000000"),
    ("retries", lambda v: 0 <= v <= 10, "use 0 to 10"),
    ("judge_retries", lambda v: 0 <= v <= 10, "use 0 to 10"),
    ("token_budget", lambda v: v is None or v >= 1, "use 1 or more, or null"),
    ("deadline_s", lambda v: v is None or v > 0, "use a positive number of seconds, or null"),
    ("seed", lambda v: 0 <= v < 2**63, "use 0 up to 2^63 - 1"),
)


def checked_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """The given policy fields, each known and of the right JSON type. Raises BadInput."""
    names = [f.name for f in fields(Policy)]
    for name, value in data.items():
        if name not in names:
            raise BadInput(
                f'unknown policy field "{name}".{nearest(name, names)}', code="unknown_field", field=f"policy.{name}"
            )
        allowed = _TYPES[name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            wanted = " or ".join("null" if t is type(None) else t.__name__ for t in allowed)
            raise BadInput(
                f"policy.{name} is {type(value).__name__}; it must be {wanted}",
                code="invalid_type",
                field=f"policy.{name}",
            )
    return dict(data)
