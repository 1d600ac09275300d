"""Server-sent events in the form of `chat.completion.chunk`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson


def comment(text: str) -> bytes:
    """A line that clients skip."""
    return f": {text}\n\n".encode()


def event(data: Mapping[str, Any]) -> bytes:
    """One event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


class Chunks:
    """A finished completion as the chunks of a stream: role, hidden text if asked for, content, end, usage."""

    def __init__(self, completion: Mapping[str, Any]) -> None:
        self._completion = completion
        self._choice = completion["choices"][0]

    def all(self, *, include_usage: bool) -> Iterator[dict[str, Any]]:
        """Every chunk in order. With `include_usage` all others carry a null usage, as clients expect."""
        usage = {"usage": None} if include_usage else {}
        message = self._choice["message"]
        yield {**self._chunk({"role": "assistant", "content": ""}), **usage}
        if message.get("reasoning_content"):
            yield {**self._chunk({"reasoning_content": message["reasoning_content"]}), **usage}
        yield {**self._chunk({"content": message["content"]}), **usage}
        last = self._chunk({}, self._choice["finish_reason"])
        if "search" in self._choice:
            last["choices"][0]["search"] = self._choice["search"]
        yield {**last, **usage}
        if include_usage:
            yield {**self._head(), "choices": [], "usage": self._completion["usage"]}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return {**self._head(), "choices": [choice]}

    def _head(self) -> dict[str, Any]:
        return {
            "id": self._completion["id"],
            "object": "chat.completion.chunk",
            "created": self._completion["created"],
            "model": self._completion["model"],
        }
