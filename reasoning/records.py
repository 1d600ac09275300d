"""The flat records of a search: what is asked, what a call must do, what came of it.

These are the JSON documents of the call rows. A record holds only what it adds: a candidate its own text,
a call the references to what it continues. Trees are built on read (`reasoning.trace`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self

from reasoning.errors import InvariantBroken
from reasoning.stages import Stage

WHOLE = "whole"
"""Stands where a stage stands for calls that write all four stages in one pass."""


class CallKind(StrEnum):
    """What a call asks of an engine."""

    GENERATE = "generate"
    COMPARE = "compare"
    CHECK = "check"
    SCORE = "score"


class Finish(StrEnum):
    """Why a candidate ended."""

    STOP = "stop"
    """The end tag was written."""
    LENGTH = "length"
    """`max_tokens` or the context ran out first: truncated."""
    EARLY_END = "early_end"
    """The model ended its turn before the end tag."""


class CallStatus(StrEnum):
    """States of a call row; `storage.transitions` holds the legal moves."""

    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier turn of a conversation, text only: role `system`, `user` or `assistant`."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """One question about one or more images.

    `images` are content hashes (hexadecimal SHA-256) in the order the model sees them, before the text.
    """

    custom_id: str
    question: str
    images: tuple[str, ...]
    choices: tuple[str, ...] = ()
    context: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Names one candidate: the key of the call that wrote it and its index among the stage's candidates."""

    call: str
    index: int

    def to_json(self) -> list[Any]:
        return [self.call, self.index]

    @classmethod
    def from_json(cls, data: list[Any]) -> Self:
        return cls(str(data[0]), int(data[1]))


@dataclass(frozen=True, slots=True)
class CallSpec:
    """What one call must do. `key` is deterministic and unique within the query.

    Fields used by kind: GENERATE reads `indices` and `attempt`; COMPARE and CHECK read `candidates`
    (two, or one) in the order first shown; `swap` asks for both orders in the same call. `path` is the
    kept candidates of the earlier stages, oldest first.
    """

    key: str
    kind: CallKind
    stage: str
    """A `Stage` value, or `WHOLE`."""
    round: int = 0
    path: tuple[Ref, ...] = ()
    indices: tuple[int, ...] = ()
    attempt: int = 0
    candidates: tuple[Ref, ...] = ()
    swap: bool = False

    def to_json(self) -> dict[str, Any]:
        """The `request` column: everything but key, kind, stage and round, which have columns."""
        return {
            "path": [[ref.call, ref.index] for ref in self.path],
            "indices": list(self.indices),
            "attempt": self.attempt,
            "candidates": [[ref.call, ref.index] for ref in self.candidates],
            "swap": self.swap,
        }

    @classmethod
    def from_json(cls, key: str, kind: str, stage: str, round_: int, data: Mapping[str, Any]) -> Self:
        return cls(
            key=key,
            kind=CallKind(kind),
            stage=stage,
            round=round_,
            path=tuple(Ref.from_json(item) for item in data["path"]),
            indices=tuple(data["indices"]),
            attempt=data["attempt"],
            candidates=tuple(Ref.from_json(item) for item in data["candidates"]),
            swap=data["swap"],
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that an engine counted for one call, and its seconds of work."""

    prompt_tokens: int = 0
    """Prompt tokens in all, whether computed or found in a cache."""
    cached_tokens: int = 0
    """Those prompt tokens that came from a cache."""
    generated_tokens: int = 0
    vision_calls: int = 0
    """Runs of the vision tower."""
    seconds: float = 0.0
    image_tokens: int = 0
    """Those prompt tokens that stand for images; 0 where an engine cannot tell."""

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled text for one stage: only what it adds to its path."""

    index: int
    text: str
    """As generated, tags included."""
    tokens: int
    finish: Finish
    token_ids: tuple[int, ...] = ()
    """The same text as token ids of the engine's tokenizer; empty where the engine has none."""
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "text": self.text,
            "tokens": self.tokens,
            "finish": self.finish.value,
            "token_ids": list(self.token_ids),
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            index=data["index"],
            text=data["text"],
            tokens=data["tokens"],
            finish=Finish(data["finish"]),
            token_ids=tuple(data["token_ids"]),
            seed=data["seed"],
        )


Parse = Literal["ok", "unparseable"]


@dataclass(frozen=True, slots=True)
class Showing:
    """One reading of a pair (or of a single candidate under a check) in one order."""

    order: tuple[int, ...]
    """Candidate indices in the order shown to the judge."""
    prompt_hash: str
    """SHA-256 of the rendered prompt: with the candidates it suffices to replay the verdict."""
    parse: Parse
    choice: int | None
    """Candidate index chosen; None when unparseable or an exact tie. For a check: the index if correct, else None."""
    words: str = ""
    """The judge's own words; empty for the `labels` judge."""
    probabilities: tuple[float, ...] = ()
    """Probability of each label in the order shown; empty for the `words` judge."""

    def to_json(self) -> dict[str, Any]:
        return {name: _plain(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            order=tuple(data["order"]),
            prompt_hash=data["prompt_hash"],
            parse=data["parse"],
            choice=data["choice"],
            words=data["words"],
            probabilities=tuple(data["probabilities"]),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said about candidates: one showing, or two when the order was swapped.

    What follows from it (winner, tie-break) is decided by the strategy, which is pure, and shown by
    `reasoning.trace`; the record itself holds only what was seen.
    """

    showings: tuple[Showing, ...]

    def to_json(self) -> dict[str, Any]:
        return {"showings": [showing.to_json() for showing in self.showings]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(tuple(Showing.from_json(item) for item in data["showings"]))


@dataclass(frozen=True, slots=True)
class CallError:
    """Why a call has no outcome. `attempts` counts starts, the last one included."""

    code: str
    message: str
    retryable: bool = False
    attempts: int = 1

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Call:
    """A call row as `plan()` sees it: what it must do and, once it ended, what came of it."""

    spec: CallSpec
    status: CallStatus = CallStatus.QUEUED
    candidates: tuple[Candidate, ...] = ()
    """Outcome of a GENERATE call."""
    verdict: Verdict | None = None
    """Outcome of a COMPARE or CHECK call."""
    error: CallError | None = None
    usage: Usage = field(default_factory=Usage)

    @property
    def ended(self) -> bool:
        return self.status not in (CallStatus.QUEUED, CallStatus.LEASED)


def outcome_to_json(candidates: tuple[Candidate, ...] = (), verdict: Verdict | None = None) -> dict[str, Any]:
    """The `outcome` column of a call that is done: candidates of a GENERATE call or the verdict of a judge call."""
    if verdict is not None:
        return {"verdict": verdict.to_json()}
    return {"candidates": [candidate.to_json() for candidate in candidates]}


def outcome_from_json(data: Mapping[str, Any] | None) -> tuple[tuple[Candidate, ...], Verdict | None]:
    """Candidates and verdict of an `outcome` column; both empty for None."""
    if data is None:
        return (), None
    if "verdict" in data:
        return (), Verdict.from_json(data["verdict"])
    return tuple(Candidate.from_json(item) for item in data["candidates"]), None


def find(ref: Ref, calls: Mapping[str, Call]) -> Candidate:
    """The candidate that `ref` names among the calls by key.

    Raises:
        InvariantBroken: no such call or candidate; a plan must only refer to outcomes it has seen.
    """
    call = calls.get(ref.call)
    for candidate in call.candidates if call else ():
        if candidate.index == ref.index:
            return candidate
    raise InvariantBroken(f"candidate {ref.index} of call {ref.call} is referred to but not stored")


def stage_of(spec: CallSpec) -> Stage | None:
    """The stage that a call belongs to, or None for a whole-answer call."""
    return None if spec.stage == WHOLE else Stage(spec.stage)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
