"""Requests and answers of an OpenAI-compatible server, and what each kind of server leaves out."""

from __future__ import annotations

import base64
import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from email.utils import parsedate_to_datetime
from typing import Any

from PIL import Image

from reasoning.prompts import Message
from reasoning.records import Candidate, Finish, Usage
from workers.engine.protocol import Choose, Generate

_ENDED = {"stop", "stop_sequence"}
"""Finish reasons of a text that came to its end; others were cut off by a filter or an abort."""
TOP_LOGPROBS = 20
"""The most that servers give for one position."""


@dataclass(slots=True)
class Dialect:
    """What the server was found to understand; each flag falls once it was refused or ignored."""

    extras: bool = True
    """Fields beyond OpenAI's own: `top_k`, `continue_final_message`, `include_stop_str_in_output`."""
    several: bool = True
    """`n` above 1."""
    logprobs: bool = True
    stops: bool = True
    """`stop`; without it a text is cut here, after the server wrote on in vain."""

    def learn(self, other: Dialect) -> None:
        """The server has answered a request in these words."""
        for flag in fields(self):
            setattr(self, flag.name, getattr(self, flag.name) and getattr(other, flag.name))


def data_uri(data: bytes) -> str:
    """The encoded image as the wire wants it."""
    kind = Image.open(io.BytesIO(data)).format or "PNG"
    kind = "JPEG" if kind == "MPO" else kind  # of several pictures the first is a plain JPEG, which all servers read
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"


def messages(turns: Sequence[Message], prefix: str, images: Mapping[str, str]) -> list[dict[str, Any]]:
    """Chat messages; the path so far is the beginning of the assistant's turn."""
    found: list[dict[str, Any]] = []
    for turn in turns:
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": images[image]}} for image in turn.images
        ]
        parts.append({"type": "text", "text": turn.text})
        found.append({"role": turn.role, "content": parts if turn.images else turn.text})
    if prefix:
        found.append({"role": "assistant", "content": prefix})
    return found


def generate_body(request: Generate, dialect: Dialect, seeds: Sequence[int]) -> dict[str, Any]:
    """The request body for one candidate per seed, or for the first where the server takes no `n`.

    Messages and model come apart.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # Servers take 32 bits, some signed.
        "seed": seeds[0] & 0x7FFFFFFF,
    }
    if len(seeds) > 1 and dialect.several:
        body["n"] = len(seeds)
    stops = bool(request.stop) and dialect.stops
    if stops:
        body["stop"] = [request.stop]
    if dialect.extras:
        body["extra_body"] = {"include_stop_str_in_output": True} if stops else {}
        if sampling.top_k:
            body["extra_body"]["top_k"] = sampling.top_k
        body["extra_body"] |= _continuation(request.prompt.prefix)
    return body


def choose_body(request: Choose, dialect: Dialect) -> dict[str, Any]:
    """The request body that asks for the label probabilities at the next token."""
    body: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
    if dialect.extras and request.prompt.prefix:
        body["extra_body"] = _continuation(request.prompt.prefix)
    return body


def candidates(request: Generate, answer: Any, first: int, dialect: Dialect) -> list[Candidate]:
    """The choices as candidates from place `first` on. Tokens are shared out by length where only a sum is given."""
    texts = [choice.message.content or "" for choice in answer.choices]
    counts = _shared_out(answer.usage.completion_tokens if answer.usage else 0, texts)
    found = []
    for place, (choice, text, tokens) in enumerate(zip(answer.choices, texts, counts, strict=True), first):
        cut, finish = _finished(request.stop, text, choice, sent=dialect.stops)
        found.append(Candidate(request.indices[place], cut, tokens, finish, (), request.seeds[place]))
    return found


def _finished(stop: str, text: str, choice: Any, *, sent: bool) -> tuple[str, Finish]:
    """The text up to its end tag. Where a server cuts a tag off that was `sent`, its finish reason tells.

    vLLM says in `stop_reason` and SGLang in `matched_stop` what ended a text; from others the word `stop` must do.
    """
    if stop and stop in text:
        return text[: text.index(stop) + len(stop)], Finish.STOP
    if choice.finish_reason == "length":
        return text, Finish.LENGTH
    ended = choice.finish_reason in _ENDED
    if not stop:
        return text, Finish.STOP if ended else Finish.EARLY_END
    extra = choice.model_extra or {}
    if sent and ended and extra.get("stop_reason", extra.get("matched_stop", stop)) == stop:
        return text + stop, Finish.STOP
    return text, Finish.EARLY_END


def probabilities(labels: Sequence[str], answer: Any) -> tuple[float, ...] | None:
    """Each label's share of the first token's probability; None when the server gives none."""
    logprobs = answer.choices[0].logprobs if answer.choices else None
    if logprobs is None or not logprobs.content:
        return None
    weights = [0.0] * len(labels)
    for item in logprobs.content[0].top_logprobs:
        token = item.token.strip().lstrip("▁Ġ")
        for place, label in enumerate(labels):
            if token and (token == label or (len(token) > 1 and label.startswith(token))):
                weights[place] += math.exp(item.logprob)
    total = sum(weights)
    return tuple(weight / total for weight in weights) if total else tuple(1.0 / len(labels) for _ in labels)


def usage(answer: Any, seconds: float) -> Usage:
    """What the server counted."""
    if answer.usage is None:
        return Usage(seconds=seconds)
    details = answer.usage.prompt_tokens_details
    cached = (details.cached_tokens if details else 0) or 0
    return Usage(answer.usage.prompt_tokens, cached, answer.usage.completion_tokens, 0, seconds)


def seconds_until(retry_after: str) -> float | None:
    """What a `retry-after` header asks for, as seconds or as a date (RFC 9110, 10.2.3); None when it asks nothing."""
    if retry_after.isascii() and retry_after.replace(".", "", 1).isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _continuation(prefix: str) -> dict[str, bool]:
    return {"continue_final_message": True, "add_generation_prompt": False} if prefix else {}


def _shared_out(total: int, texts: Sequence[str]) -> list[int]:
    """Whole numbers that add up to `total`, in proportion to the texts' lengths."""
    length = sum(map(len, texts)) or 1
    ends = [round(total * sum(map(len, texts[: place + 1])) / length) for place in range(len(texts))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
