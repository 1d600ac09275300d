"""The `openai` engine: any OpenAI-compatible server (vLLM, SGLang, TGI, `transformers serve`, hosted models)."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import openai

from reasoning.errors import ModelError, StagebeamError, Transient
from reasoning.policy import PromptStyle
from reasoning.records import Candidate, Usage
from workers.engine import remote_wire as wire
from workers.engine.images import decode
from workers.engine.protocol import Choose, Chosen, Counters, EngineInfo, Generate, Generated, ImageLoader, Request
from workers.engine.remote_gate import Gate

POLL_S = 0.05
"""How often cancel flags and deadlines are looked at."""

KEPT_IMAGES = 64
"""Encoded images kept for the next request of their query."""

_BUSY = {408, 409, 425, 429}
"""Beside all from 500 on: gateways have many words for a server that takes its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """Settings of the openai engine by field name."""

    base_url: str = ""
    model: str = ""
    api_key: str = ""
    slots: int = 64
    """Requests in hand at once."""
    start: int = 8
    """Requests sent at once to begin with; more or fewer as the server answers."""
    retries: int = 6
    backoff_s: float = 0.5
    """First pause before a retry, doubled each time; a server's `retry-after` comes first."""
    max_backoff_s: float = 30.0
    timeout_s: float = 600.0
    context: int = 32_768
    prompts: PromptStyle = "standard"


class RemoteEngine:
    """Sends requests over one asyncio loop in a thread of its own."""

    def __init__(self, options: RemoteOptions) -> None:
        self._options = options
        self._dialect = wire.Dialect()
        self._gate = Gate(options.start, options.slots)
        self._totals: Counter[str] = Counter()
        self._open: Counter[str] = Counter()
        self._images: OrderedDict[str, str] = OrderedDict()
        self._slots = threading.Semaphore(options.slots)
        self._closed = False
        self._door = threading.Lock()
        """What was let in before the engine closed is known to the loop, and failed by it."""
        self._loop = asyncio.new_event_loop()
        self._client = openai.AsyncOpenAI(
            base_url=options.base_url, api_key=options.api_key or "none", max_retries=0, timeout=options.timeout_s
        )
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine-remote", daemon=True)
        self._thread.start()

    @property
    def info(self) -> EngineInfo:
        options = self._options
        return EngineInfo(
            kind="openai",
            model=options.model,
            revision="remote",
            device=options.base_url,
            dtype="unknown",
            slots=options.slots,
            context=options.context,
            prompts=options.prompts,
            has_labels=self._dialect.logprobs,
            keeps_ids=False,
        )

    def generate(self, request: Generate) -> Future[Generated]:
        """Queue the request; blocks while all slots are taken."""
        return self._submit(request, lambda: self._generate(request))

    def choose(self, request: Choose) -> Future[Chosen]:
        """Queue the request; blocks while all slots are taken."""
        return self._submit(request, lambda: self._choose(request))

    def counters(self) -> Counters:
        values = {name: float(count) for name, count in self._totals.items()}
        return Counters(values=values | {"concurrency_limit": self._gate.limit})

    def close(self) -> None:
        """Fail what is in hand with `Transient` and end the thread."""
        with self._door:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _submit(self, request: Request, work: Callable[[], Coroutine[Any, Any, Any]]) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._slots.acquire()
        future.add_done_callback(lambda _: self._slots.release())
        with self._door:
            if not self._closed:
                asyncio.run_coroutine_threadsafe(self._settle(request, work, future), self._loop)
                return future
        future.set_exception(_closed())
        return future

    async def _settle(
        self, request: Request, work: Callable[[], Coroutine[Any, Any, Any]], future: Future[Any]
    ) -> None:
        self._open[request.group] += 1
        try:
            result = await self._watched(request, asyncio.ensure_future(work()))
            self._count(result.usage, requests=1)
            future.set_result(result)
        except StagebeamError as error:
            self._totals["errors"] += 1
            future.set_exception(error)
        except asyncio.CancelledError:
            future.set_exception(_closed())
        except Exception as error:  # a server may answer anything
            self._totals["errors"] += 1
            future.set_exception(
                ModelError(f"the answer of the server cannot be read: {error}", code="crash", retryable=True)
            )
        finally:
            self._open[request.group] -= 1
            if not self._open[request.group]:
                del self._open[request.group]
                self._gate.forget(request.group)

    async def _watched(self, request: Request, task: asyncio.Task[Any]) -> Any:
        """The result of `task`, given up as soon as nobody waits for it."""
        try:
            while True:
                if request.cancelled():
                    raise ModelError("the call was cancelled", code="cancelled")
                left = POLL_S if request.deadline is None else min(POLL_S, request.deadline - time.monotonic())
                if left <= 0:
                    raise ModelError("the deadline passed before the call ended", code="deadline")
                done, _ = await asyncio.wait([task], timeout=left)
                if done:
                    return task.result()
        finally:
            task.cancel()

    async def _generate(self, request: Generate) -> Generated:
        if not request.seeds or len(request.seeds) != len(request.indices):
            raise ModelError("ask for at least one candidate, with one seed each", code="no_candidates")
        found: list[Candidate] = []
        total = Usage()
        while len(found) < len(request.seeds):
            seeds = request.seeds[len(found) :]
            answer, seconds, words = await self._ask(request, partial(wire.generate_body, request, seeds=seeds))
            if not answer.choices:
                raise ModelError("the server answered without a choice", code="crash", retryable=True)
            # A server that ignores `n` gives one choice: the others are asked for one by one.
            self._dialect.several = self._dialect.several and len(answer.choices) >= len(seeds)
            found += wire.candidates(request, answer, len(found), words)
            total += wire.usage(answer, seconds)
        return Generated(candidates=tuple(found[: len(request.seeds)]), usage=total)

    async def _choose(self, request: Choose) -> Chosen:
        if self._dialect.logprobs:
            answer, seconds, _ = await self._ask(request, partial(wire.choose_body, request))
            shares = wire.probabilities(request.labels, answer)
            if shares is not None:
                return Chosen(probabilities=shares, usage=wire.usage(answer, seconds))
            self._dialect.logprobs = False
        raise ModelError("this server gives no token probabilities; judge in words", code="no_labels", retryable=True)

    async def _ask(
        self, request: Request, body: Callable[[wire.Dialect], dict[str, Any]]
    ) -> tuple[Any, float, wire.Dialect]:
        """One answer of the server, its seconds and the words asked in; retried while the server is busy or away."""
        images = {image: await self._image(image, request) for image in request.prompt.images}
        turns: Any = wire.messages(request.prompt.messages, request.prompt.prefix, images)
        trying = replace(self._dialect)
        failed: openai.APIError | None = None
        for attempt in range(self._options.retries + 1):
            await self._gate.enter(request.group)
            sent = body(trying)
            started = time.monotonic()
            pause = 0.0
            try:
                answer = await self._client.chat.completions.create(
                    model=self._options.model,
                    messages=turns,
                    **sent,
                )
                self._gate.went_well()
                self._dialect.learn(trying)
                return answer, time.monotonic() - started, trying
            except openai.APIConnectionError as error:
                self._gate.pushed_back()
                pause, failed = self._pause(attempt, error), error
            except openai.APIStatusError as error:
                pause, failed = self._refused(attempt, error, sent, trying), error
            finally:
                self._gate.leave()
            self._totals["retries"] += 1
            await asyncio.sleep(pause)
        raise self._no_answer(failed)

    def _refused(
        self, attempt: int, error: openai.APIStatusError, sent: Mapping[str, Any], trying: wire.Dialect
    ) -> float:
        """Seconds to wait before trying again; raises when trying again cannot help.

        What was `sent` may have been more than the server understands: then `trying` becomes simpler. That holds for
        others once the server has answered; it may have refused this one request for what is in it.
        """
        told = str(error).lower()
        if error.status_code == 500 and attempt and "stop" in sent:
            # `transformers serve` 5.23 fails so on `stop` for every model with an image processor.
            trying.stops = False
            return 0.0
        if error.status_code in _BUSY or error.status_code >= 500:
            trying.stops = self._dialect.stops
            self._gate.pushed_back()
            return self._pause(attempt, error)
        if error.status_code in (400, 422) and sent.get("extra_body") and "context" not in told:
            trying.extras = False
            return 0.0
        if error.status_code in (400, 422) and "n" in sent and re.search(r"\bn\b", told):
            trying.several, trying.extras = False, self._dialect.extras
            return 0.0
        code = "context_overflow" if "context" in told else "refused"
        raise ModelError(f"{self._options.base_url} refused the request: {error}", code=code)

    def _no_answer(self, error: openai.APIError | None) -> StagebeamError:
        """What is left to say when all tries failed: one request on which a server fails must not be sent for ever."""
        tries = f"in {self._options.retries + 1} tries: {error}"
        if isinstance(error, openai.APIStatusError) and error.status_code == 500:
            return ModelError(f"{self._options.base_url} failed {tries}", code="crash", retryable=True)
        return Transient(f"{self._options.base_url} did not answer {tries}")

    def _pause(self, attempt: int, error: openai.APIError) -> float:
        response = getattr(error, "response", None)
        asked = response.headers.get("retry-after", "") if response is not None else ""
        if (seconds := wire.seconds_until(asked)) is not None:
            return min(seconds, self._options.max_backoff_s)
        spread = 0.5 + random.random()  # noqa: S311 (keeps workers from coming back together)
        return float(min(self._options.max_backoff_s, self._options.backoff_s * 2**attempt) * spread)

    async def _image(self, image: str, request: Request) -> str:
        if image not in self._images:
            self._images[image] = await asyncio.to_thread(_encoded, image, request.load_image)
            while len(self._images) > KEPT_IMAGES:
                self._images.popitem(last=False)
        self._images.move_to_end(image)
        return self._images[image]

    def _count(self, usage: Usage, **more: int) -> None:
        self._totals.update(
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            generated_tokens=usage.generated_tokens,
            **more,
        )

    async def _stop(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()


def _encoded(image: str, load: ImageLoader) -> str:
    """The image as the wire wants it, known to be one. Not for the thread that talks to the server."""
    once = cache(load)
    decode(image, once)
    return wire.data_uri(once(image))


def _closed() -> Transient:
    return Transient("the engine is closed; the call runs again on another worker")
