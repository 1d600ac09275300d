"""The process of one engine: reads requests from its standard input, writes results to its standard output.

It ends when its input does, so it never outlives the worker that started it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import structlog
import torch

from reasoning.errors import BadInput, Transient
from workers.engine.config import build
from workers.engine.frames import Channel, error_to_json, request_from_json, result_to_json
from workers.engine.local import DeviceOptions, TransformersEngine
from workers.engine.protocol import Choose

_GONE = "the worker is gone"


def main() -> None:
    """Serve one engine until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the worker decides when its engines end
        signal.signal(number, signal.SIG_IGN)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand between the frames
    set_up_log()
    channel = Channel(sys.stdin.buffer, output)
    opening = channel.receive()
    if opening is None:
        return
    asked, _ = opening
    torch.set_num_threads(asked["cores"])
    try:
        engine = TransformersEngine(asked["model"], build(DeviceOptions, asked["options"]))
    except BadInput as error:
        channel.send({"is": "refused", "message": error.message, "code": error.code, "field": error.field})
        return
    channel.send({"is": "ready", "info": asdict(engine.info)})
    Served(engine, channel).run()


def set_up_log() -> None:
    """Tracebacks without the locals of frames, which hold users' texts and take seconds where they are tensors."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ]
    )


class Served:
    """Requests of one worker in one engine."""

    def __init__(self, engine: TransformersEngine, channel: Channel) -> None:
        self._engine = engine
        self._channel = channel
        self._cancelled: set[int] = set()
        self._images: dict[int, Future[bytes]] = {}
        self._lock = threading.Lock()
        self._loads = 0
        self._ended = False

    def run(self) -> None:
        """Take frames in until there are no more."""
        hear = {"ask": self._ask, "cancel": self._cancel, "image": self._image, "count": self._count}
        while (frame := self._channel.receive()) is not None:
            document, data = frame
            hear[document["is"]](document, data)
        with self._lock:
            self._ended = True
            waiting = list(self._images.values())
        for future in waiting:
            future.set_exception(Transient(_GONE))
        self._engine.close()

    def _ask(self, document: dict[str, Any], _data: bytes) -> None:
        number = document["number"]
        request = request_from_json(document["request"], partial(self._load, number), lambda: number in self._cancelled)
        engine = self._engine
        future: Future[Any] = engine.choose(request) if isinstance(request, Choose) else engine.generate(request)
        future.add_done_callback(partial(self._tell, number))

    def _tell(self, number: int, future: Future[Any]) -> None:
        self._cancelled.discard(number)
        error = future.exception()
        found = {"result": result_to_json(future.result())} if error is None else {"error": error_to_json(error)}
        self._send({"is": "told", "number": number, **found})

    def _cancel(self, document: dict[str, Any], _data: bytes) -> None:
        self._cancelled.update(document["numbers"])

    def _count(self, _document: dict[str, Any], _data: bytes) -> None:
        self._send({"is": "counted", "values": dict(self._engine.counters().values)})

    def _load(self, number: int, content_hash: str) -> bytes:
        """An image by way of the worker, which has the object store. Raises KeyError and Transient as there."""
        future: Future[bytes] = Future()
        with self._lock:
            if self._ended:
                raise Transient(_GONE)
            self._loads += 1
            load = self._loads
            self._images[load] = future
        self._send({"is": "load", "load": load, "number": number, "image": content_hash})
        return future.result()

    def _image(self, document: dict[str, Any], data: bytes) -> None:
        with self._lock:
            future = self._images.pop(document["load"])
        error = document.get("error")
        if error is None:
            future.set_result(data)
        else:
            future.set_exception(KeyError(document["image"]) if error == "missing" else Transient(error))

    def _send(self, document: dict[str, Any]) -> None:
        with suppress(OSError, ValueError):  # the worker is gone, and the input is about to end
            self._channel.send(document)


if __name__ == "__main__":
    main()
