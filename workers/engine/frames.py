"""What passes between a worker and an engine in a process of its own: JSON documents over pipes, bytes behind them."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any

import orjson

from reasoning.errors import ModelError, StagebeamError, Transient
from reasoning.prompts import Message, Prompt
from reasoning.records import Candidate, Usage
from workers.engine.protocol import Choose, Chosen, Generate, Generated, ImageLoader, Sampling

_HEAD = struct.Struct("<II")
"""Bytes of the document, then of what follows it."""


class Channel:
    """One end of a pair of pipes. `send` may be called from any thread, `receive` from one."""

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader, self._writer = reader, writer
        self._lock = threading.Lock()

    def send(self, document: Mapping[str, Any], data: bytes = b"") -> None:
        """Send a document. Raises OSError or ValueError when the other end is gone."""
        text = orjson.dumps(document)
        with self._lock:
            self._writer.write(_HEAD.pack(len(text), len(data)) + text + data)
            self._writer.flush()

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """The next document with its bytes; None when the other end is gone."""
        head = self._reader.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        length, more = _HEAD.unpack(head)
        content = self._reader.read(length + more)
        return None if len(content) < length + more else (orjson.loads(content[:length]), content[length:])

    def end(self) -> None:
        """Let the other end see that nothing more comes."""
        with self._lock, suppress(OSError):
            self._writer.close()

    def close(self) -> None:
        """Close both pipes, once nobody receives any more."""
        self.end()
        self._reader.close()


def request_to_json(request: Generate | Choose) -> dict[str, Any]:
    """A request without its callbacks."""
    prompt = request.prompt
    document: dict[str, Any] = {
        "call_id": request.call_id,
        "messages": [[message.role, message.text, message.images] for message in prompt.messages],
        "prefix": prompt.prefix,
        "prompt_labels": prompt.labels,
        "group": request.group,
        "deadline": request.deadline,  # the monotonic clock is one for all processes of a machine
    }
    if isinstance(request, Choose):
        return {**document, "labels": request.labels}
    sampling = request.sampling
    return {
        **document,
        "indices": request.indices,
        "seeds": request.seeds,
        "stop": request.stop,
        "sampling": [sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens],
        "prefix_ids": request.prefix_ids,
    }


def request_from_json(
    document: Mapping[str, Any], load_image: ImageLoader, cancelled: Callable[[], bool]
) -> Generate | Choose:
    """The request again, with callbacks of this process."""
    messages = tuple(Message(role, text, tuple(images)) for role, text, images in document["messages"])
    first, second = document["prompt_labels"]
    shared: dict[str, Any] = {
        "call_id": document["call_id"],
        "prompt": Prompt(messages, document["prefix"], (first, second)),
        "load_image": load_image,
        "group": document["group"],
        "deadline": document["deadline"],
        "cancelled": cancelled,
    }
    if "labels" in document:
        return Choose(labels=tuple(document["labels"]), **shared)
    temperature, top_p, top_k, max_tokens = document["sampling"]
    return Generate(
        indices=tuple(document["indices"]),
        seeds=tuple(document["seeds"]),
        stop=document["stop"],
        sampling=Sampling(temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=max_tokens),
        prefix_ids=tuple(document["prefix_ids"]),
        **shared,
    )


def result_to_json(result: Generated | Chosen) -> dict[str, Any]:
    """What came of a request."""
    if isinstance(result, Chosen):
        return {"probabilities": result.probabilities, "usage": result.usage.to_json()}
    return {"candidates": [item.to_json() for item in result.candidates], "usage": result.usage.to_json()}


def result_from_json(document: Mapping[str, Any]) -> Generated | Chosen:
    """The result again."""
    usage = Usage.from_json(document["usage"])
    if "probabilities" in document:
        return Chosen(probabilities=tuple(document["probabilities"]), usage=usage)
    return Generated(candidates=tuple(map(Candidate.from_json, document["candidates"])), usage=usage)


def error_to_json(error: BaseException) -> dict[str, Any]:
    """Why a request has no result."""
    if isinstance(error, ModelError):
        return {"message": error.message, "code": error.code, "retryable": error.retryable}
    passing = isinstance(error, Transient)
    return {"message": str(error) if passing else f"{type(error).__name__}: {error}", "code": ""}


def error_from_json(document: Mapping[str, Any]) -> StagebeamError:
    """The error again; one that is neither of the model nor of this program passes for transient."""
    if document["code"]:
        return ModelError(document["message"], code=document["code"], retryable=document["retryable"])
    return Transient(document["message"])
