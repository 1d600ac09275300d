"""An engine in processes of its own: its loops share no interpreter with each other, nor with the worker's threads.

A step of a small model is some milliseconds of Python and short device calls. In one interpreter two loops wait for
each other, and both for every thread that talks to the broker and the database.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog

from reasoning.errors import BadInput, ModelError, Transient
from workers.engine.frames import Channel, error_from_json, request_to_json, result_from_json
from workers.engine.protocol import Choose, Chosen, Counters, EngineInfo, Generate, Generated
from workers.engine.watchdog import end_process

log = structlog.get_logger()

CANCEL_S = 0.2
"""Between two looks at the cancel flags, which engines in this process look at every step."""
COUNT_S = 2.0
"""An engine that does not tell its counters in this time has those of before."""
CLOSE_S = 10.0

_CLOSED = "the engine is closed; the call runs again on another worker"


@dataclass(slots=True, eq=False)
class _Asked:
    request: Generate | Choose
    future: Future[Any]
    told: bool = False
    """That it was cancelled."""


class ApartEngine:
    """Several processes with an engine each; all requests about an image go to the same. Ready when constructed."""

    def __init__(
        self,
        model: str,
        options: Mapping[str, Any],
        *,
        slots: int,
        processes: int,
        cores: int,
        die: Callable[[], None] = end_process,
    ) -> None:
        """`options` are those of each process, which has `cores`; `die` ends this process when one of them is lost.

        Raises:
            BadInput: the model cannot be loaded.
        """
        self._slots = threading.Semaphore(slots)
        self._closed = threading.Event()
        opening = {"model": model, "options": {**options, "slots": slots}, "cores": cores}
        self._children = [Child(opening, die) for _ in range(processes)]
        try:
            infos = [child.info() for child in self._children]
        except BadInput:
            self.close()
            raise
        self.info: EngineInfo = replace(infos[0], slots=slots)
        self._flags = threading.Thread(target=self._watch_flags, name="engine-flags", daemon=True)
        self._flags.start()

    def generate(self, request: Generate) -> Future[Generated]:
        """Queue the request; blocks while all slots are taken."""
        return self._submit(request)

    def choose(self, request: Choose) -> Future[Chosen]:
        """Queue the request; blocks while all slots are taken."""
        return self._submit(request)

    def counters(self) -> Counters:
        totals: Counter[str] = Counter()
        for child in self._children:
            totals.update(child.count())
        return Counters(values=dict(totals))

    def close(self) -> None:
        """Fail what is in hand with `Transient` and end the processes."""
        self._closed.set()
        for child in self._children:
            child.close()

    def _submit(self, request: Generate | Choose) -> Future[Any]:
        future: Future[Any] = Future()
        if self._closed.is_set():
            future.set_exception(Transient(_CLOSED))
            return future
        self._slots.acquire()
        future.add_done_callback(lambda _: self._slots.release())
        key = "".join(request.prompt.images) or request.group or request.call_id
        self._children[zlib.crc32(key.encode()) % len(self._children)].ask(request, future)
        return future

    def _watch_flags(self) -> None:
        while not self._closed.wait(CANCEL_S):
            for child in self._children:
                child.tell_cancelled()


class Child:
    """One process, its requests in hand and the thread that hears it."""

    def __init__(self, opening: Mapping[str, Any], die: Callable[[], None]) -> None:
        self._die = die
        self._lock = threading.Lock()
        self._asked: dict[int, _Asked] = {}
        self._numbers = 0
        self._closing = False
        self._ready: Future[EngineInfo] = Future()
        self._counted = threading.Event()
        self._values: dict[str, float] = {}
        self._loaders = ThreadPoolExecutor(2, thread_name_prefix="engine-images")
        command = [sys.executable, "-m", "workers.engine.apart_child"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: PT018, S101 - as asked for
        self._channel = Channel(self._process.stdout, self._process.stdin)
        with suppress(OSError):  # one that is gone already is noticed by the thread
            self._channel.send(opening)
        self._thread = threading.Thread(target=self._hear, name="engine-apart", daemon=True)
        self._thread.start()

    def info(self) -> EngineInfo:
        """What the engine tells of itself, once it is ready. Raises BadInput."""
        return self._ready.result()

    def ask(self, request: Generate | Choose, future: Future[Any]) -> None:
        """Have the request done; its result goes to `future`."""
        with self._lock:
            self._numbers += 1
            number = self._numbers
            self._asked[number] = _Asked(request, future)
        try:
            self._channel.send({"is": "ask", "number": number, "request": request_to_json(request)})
        except (OSError, ValueError):
            self._settle(number, Transient(_CLOSED))
        except TypeError as error:
            self._settle(number, ModelError(f"the prompt could not be prepared: {error}", code="bad_prompt"))

    def tell_cancelled(self) -> None:
        """Pass on the cancel flags that were raised since the last look."""
        with self._lock:
            held = list(self._asked.items())
        new = {number: asked for number, asked in held if not asked.told and asked.request.cancelled()}
        if new:
            with suppress(OSError, ValueError):
                self._channel.send({"is": "cancel", "numbers": list(new)})
        for asked in new.values():
            asked.told = True

    def count(self) -> Mapping[str, float]:
        """The engine's counters, or those of before when it does not answer soon."""
        self._counted.clear()
        with suppress(OSError, ValueError):
            self._channel.send({"is": "count"})
            self._counted.wait(COUNT_S)
        return self._values

    def close(self) -> None:
        """End the process and fail what it had in hand."""
        self._closing = True
        self._channel.end()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join()
        self._loaders.shutdown()
        self._channel.close()

    def _hear(self) -> None:
        try:
            self._listen()
        except Exception:
            # A thread that ended unheard would leave its callers waiting for ever.
            log.critical("An engine told what cannot be read; this process ends", action="engine.lost", exc_info=True)
            self._die()

    def _listen(self) -> None:
        hear = {"ready": self._on_ready, "refused": self._on_refused, "told": self._on_told}
        hear |= {"counted": self._on_counted, "load": self._on_load}
        while (frame := self._channel.receive()) is not None:
            hear[frame[0]["is"]](frame[0])
        if not self._ready.done():
            self._ready.set_exception(
                BadInput("the engine ended while it loaded the model; its log says why", code="unknown_model")
            )
        elif not self._closing and self._ready.exception() is None:
            log.critical("The process of an engine is lost; this one ends too", action="engine.lost")
            self._die()
        for number in list(self._asked):
            self._settle(number, Transient(_CLOSED))

    def _on_ready(self, document: dict[str, Any]) -> None:
        self._ready.set_result(EngineInfo(**document["info"]))

    def _on_refused(self, document: dict[str, Any]) -> None:
        self._ready.set_exception(BadInput(document["message"], code=document["code"], field=document["field"]))

    def _on_told(self, document: dict[str, Any]) -> None:
        found = document.get("result")
        told = error_from_json(document["error"]) if found is None else result_from_json(found)
        self._settle(document["number"], told)

    def _on_counted(self, document: dict[str, Any]) -> None:
        self._values = document["values"]
        self._counted.set()

    def _on_load(self, document: dict[str, Any]) -> None:
        self._loaders.submit(self._load, document)

    def _load(self, document: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"is": "image", "load": document["load"], "image": document["image"]}
        data = b""
        asked = self._asked.get(document["number"])
        try:
            if asked is None:  # the image may be wanted by others all the same
                raise Transient("the call that asked for the image has ended")
            data = asked.request.load_image(document["image"])
        except KeyError:
            reply["error"] = "missing"
        except Exception as error:  # whatever it is, the engine waits for an answer
            reply["error"] = str(error)
        with suppress(OSError, ValueError):
            self._channel.send(reply, data)

    def _settle(self, number: int, found: Generated | Chosen | Exception) -> None:
        with self._lock:
            asked = self._asked.pop(number, None)
        if asked is None:
            return
        if isinstance(found, Exception):
            asked.future.set_exception(found)
        else:
            asked.future.set_result(found)
