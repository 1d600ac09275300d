"""The scripted engine: deterministic text from hashes, no model, faults on demand.

It ships in the package, costs some tens of microseconds per request, and passes the same contract tests as
the engines that run a model. Every draw hashes the request, so a run repeats exactly.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from reasoning.errors import ModelError, Transient
from reasoning.policy import PromptStyle
from reasoning.records import Candidate, Finish, Usage
from workers.engine import script_text
from workers.engine.delays import Delays
from workers.engine.images import decode
from workers.engine.protocol import Choose, Chosen, Counters, EngineInfo, Generate, Generated, Request

Result = TypeVar("Result", Generated, Chosen)

SEEN_IMAGES = 10_000
"""How many content hashes are remembered as checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Settings of the scripted engine. Faults are rates from 0 to 1, drawn from a hash of what they hit."""

    seed: int = 0
    slots: int = 64
    context: int = 8192
    """Words of prompt and answer together."""
    prompts: PromptStyle = "standard"
    labels: bool = True
    """Whether `Choose` works."""
    read_images: bool = True
    """Each distinct image is loaded and checked once, as an engine with a model would."""
    seconds: float = 0.0
    """Duration of every request."""
    markers: bool = False
    """A question that contains `#` and the name of a fault, such as `#crash`, always has that fault."""
    times: int = 0
    """Faults of a whole request hit only its first so many starts in this process; 0 means every start."""

    missing_end: float = 0.0
    """Of a candidate: the end tag is left out and the text goes on with the next tag."""
    early_end: float = 0.0
    """Of a candidate: the turn ends in the middle of the text."""
    truncation: float = 0.0
    """Of a candidate: the token limit cuts the text."""
    duplicates: float = 0.0
    """Of a candidate: the text is the same under every seed."""
    off_format: float = 0.0
    """Of a verdict in words: it cannot be parsed."""
    tie: float = 0.0
    """Of a verdict by labels: both are equally probable."""
    slow: float = 0.0
    """Of a request: it takes `slow_seconds` more."""
    slow_seconds: float = 1.0
    timeout: float = 0.0
    """Of a request: nothing comes until its deadline."""
    transient: float = 0.0
    """Of a request: fails, expected to succeed when tried again."""
    crash: float = 0.0
    """Of a request: an exception inside the model."""
    kill: float = 0.0
    """Of a request: the process dies on the spot."""


FAULTS = (
    "missing_end",
    "early_end",
    "truncation",
    "duplicates",
    "off_format",
    "tie",
    "slow",
    "timeout",
    "transient",
    "crash",
    "kill",
)
"""Names of the rates of `Script`."""


def kill_process() -> None:
    """Die as under the kernel's out-of-memory killer: no clean-up, no farewell."""
    os.kill(os.getpid(), signal.SIGKILL)


class ScriptedEngine:
    """Answers any prompt from its hash. Requests without a duration are answered in the caller's thread."""

    def __init__(
        self,
        script: Script = Script(),
        *,
        seconds: Callable[[Request], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        die: Callable[[], None] = kill_process,
    ) -> None:
        """`seconds` gives the duration of a request in place of `script.seconds`; `die` ends the process."""
        self._script = script
        self._seconds = seconds or (lambda _request: script.seconds)
        self._clock = clock
        self._die = die
        self._faults = frozenset(name for name in FAULTS if getattr(script, name) > 0)
        self._delays = Delays(script.slots, clock)
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()
        self._starts: Counter[str] = Counter()
        self._images: dict[str, None] = {}
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        script = self._script
        return EngineInfo(
            kind="scripted",
            model="scripted",
            revision="1",
            device="none",
            dtype="none",
            slots=script.slots,
            context=script.context,
            prompts=script.prompts,
            has_labels=script.labels,
            keeps_ids=False,
        )

    def generate(self, request: Generate) -> Future[Generated]:
        """Queue the request; blocks only while every slot holds a request with a duration."""
        return self._submit(request, lambda: self._written(request))

    def choose(self, request: Choose) -> Future[Chosen]:
        """Queue the request; blocks only while every slot holds a request with a duration."""
        return self._submit(request, lambda: self._chosen(request))

    def counters(self) -> Counters:
        with self._lock:
            return Counters(values=dict(self._totals))

    def close(self) -> None:
        """Fail what is in hand with `Transient`; later requests fail the same way."""
        self._closed = True
        self._delays.close()

    def _submit(self, request: Request, answer: Callable[[], Result]) -> Future[Result]:
        future: Future[Result] = Future()
        if self._script.times:
            with self._lock:
                self._starts[request.call_id] += 1
        duration = self._seconds(request) + self._script.slow_seconds * self._hit("slow", request)
        if self._hit("timeout", request):
            duration = float("inf")
            if request.deadline is None:
                future.set_exception(ModelError("the scripted request timed out", code="deadline", retryable=True))
                return future
        if duration > 0:
            self._delays.add(request, duration, lambda: self._settle(request, future, answer), future)
        else:
            self._settle(request, future, answer)
        return future

    def _settle(self, request: Request, future: Future[Result], answer: Callable[[], Result]) -> None:
        try:
            self._refuse(request)
            future.set_result(answer())
        except (ModelError, Transient) as error:
            self._count(errors=1)
            future.set_exception(error)

    def _refuse(self, request: Request) -> None:
        """Raise what stands against answering: closed, cancelled, late, a fault, a bad image, no room."""
        if self._closed:
            raise Transient("the engine is closed; the call runs again on another worker")
        if request.cancelled():
            raise ModelError("the call was cancelled", code="cancelled")
        if request.deadline is not None and self._clock() >= request.deadline:
            raise ModelError("the deadline passed before the call ended", code="deadline")
        if self._hit("kill", request):
            self._die()
        if self._hit("crash", request):
            raise ModelError("the scripted model crashed; the next try may succeed", code="crash", retryable=True)
        if self._hit("transient", request):
            raise Transient("the scripted engine was not ready; try again")
        if (words := _words(request)) >= self._script.context:
            raise ModelError(
                f"the prompt has {words} words and the context holds {self._script.context}; shorten the question",
                code="context_overflow",
            )

    def _hit(self, fault: str, request: Request, *parts: object) -> bool:
        script = self._script
        if script.markers and any(f"#{fault}" in message.text for message in request.prompt.messages):
            hit = True
        elif fault in self._faults:
            hit = script_text.fraction(script.seed, fault, request.call_id, *parts) < getattr(script, fault)
        else:
            return False
        return hit and (not script.times or bool(parts) or self._starts[request.call_id] <= script.times)

    def _written(self, request: Generate) -> Generated:
        if not request.seeds:
            raise ModelError("a request for zero candidates; ask for at least one", code="no_candidates")
        vision_calls = self._see(request)
        asked = script_text.read(request.prompt)
        digest = request.prompt.digest
        candidates = tuple(
            self._candidate(request, asked, digest, index, seed)
            for index, seed in zip(request.indices, request.seeds, strict=True)
        )
        usage = Usage(
            prompt_tokens=_words(request),
            generated_tokens=sum(candidate.tokens for candidate in candidates),
            vision_calls=vision_calls,
            seconds=self._seconds(request),
        )
        self._count(requests=1, prompt_tokens=usage.prompt_tokens, generated_tokens=usage.generated_tokens)
        return Generated(candidates=candidates, usage=usage)

    def _candidate(self, request: Generate, asked: script_text.Asked, digest: str, index: int, seed: int) -> Candidate:
        greedy = request.sampling.temperature == 0 or self._hit("duplicates", request, seed)
        draw = self._script.seed if greedy else seed
        if asked.form == "stages":
            stages = script_text.due_stages(request.prompt.prefix, request.stop)
            text = "\n".join(script_text.stage_text(stage, asked.question, digest, draw) for stage in stages)
            text, finish = self._spoil(request, text, seed)
        else:
            text = script_text.verdict_text(asked, digest, off_format=self._hit("off_format", request, seed))
            finish = Finish.STOP if request.stop and text.endswith(request.stop) else Finish.EARLY_END
        words = text.split(" ")
        if len(words) > request.sampling.max_tokens:
            words, finish = words[: request.sampling.max_tokens], Finish.LENGTH
        return Candidate(index=index, text=" ".join(words), tokens=len(words), finish=finish, seed=seed)

    def _spoil(self, request: Generate, text: str, seed: int) -> tuple[str, Finish]:
        if self._hit("truncation", request, seed):
            return text[: len(text) // 2], Finish.LENGTH
        if self._hit("early_end", request, seed):
            return text[: len(text) // 2], Finish.EARLY_END
        if self._hit("missing_end", request, seed):
            return f"{text.removesuffix(request.stop)}\n<CONCLUSION>", Finish.EARLY_END
        return text, Finish.STOP

    def _chosen(self, request: Choose) -> Chosen:
        if not self._script.labels:
            raise ModelError("this engine gives no label probabilities; judge in words", code="no_labels")
        vision_calls = self._see(request)
        asked = script_text.read(request.prompt)
        if asked.form in ("compare", "compact"):
            first = script_text.preference(asked.shown)
            weights = [first, 1 - first]
        else:
            weights = [script_text.fraction(request.prompt.digest, label) + 1e-6 for label in request.labels]
        if self._hit("tie", request, "tie"):
            weights = [1.0] * len(request.labels)
        usage = Usage(prompt_tokens=_words(request), vision_calls=vision_calls, seconds=self._seconds(request))
        self._count(requests=1, prompt_tokens=usage.prompt_tokens)
        return Chosen(probabilities=tuple(weight / sum(weights) for weight in weights), usage=usage)

    def _see(self, request: Request) -> int:
        """Load and check the images not seen before; their number."""
        fresh = [] if not self._script.read_images else [i for i in request.prompt.images if i not in self._images]
        for image in fresh:
            decode(image, request.load_image)
        with self._lock:
            self._images.update(dict.fromkeys(fresh))
            while len(self._images) > SEEN_IMAGES:
                del self._images[next(iter(self._images))]
            self._totals["vision_calls"] += len(fresh)
        return len(fresh)

    def _count(self, **amounts: int) -> None:
        with self._lock:
            self._totals.update(amounts)


def _words(request: Request) -> int:
    """Prompt length in words, prefix included: the scripted engine's token."""
    return sum(message.text.count(" ") + 1 for message in request.prompt.messages) + request.prompt.prefix.count(" ")
