"""Models without an adapter: one request at a time through transformers' own `generate`.

Right but slow. Candidates draw with the same counter-based noise as everywhere, so results repeat.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import structlog
import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from reasoning.errors import ModelError, StagebeamError, Transient
from reasoning.prompts import Prompt
from reasoning.records import Candidate, Finish, Usage
from workers.engine.encode import Encoder
from workers.engine.images import decode
from workers.engine.model_folder import Checkpoint
from workers.engine.protocol import Choose, Chosen, Generate, Generated, Request
from workers.engine.sampling import Draw

log = structlog.get_logger()

IDLE_S = 0.01
_CLOSED = "the engine was closed; the call runs again elsewhere"


class PlainLoop:
    """Stands where `Loop` stands; runs requests in order of arrival."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        log.warning(
            "This model family has no adapter: it runs on plain generate, one request at a time",
            action="engine.plain",
            model=checkpoint.name,
            family=checkpoint.model.config.model_type,
        )
        self.busy_since: float | None = None
        self._model, self._processor = checkpoint.model, checkpoint.processor
        self._encoder = Encoder(checkpoint.processor)
        self._ends = checkpoint.ends
        # A text with a placeholder could not be continued, as no image belongs to it.
        placeholder = getattr(checkpoint.model.config, "image_token_id", None)
        self._mute = None if placeholder is None else [placeholder]
        self._waiting: deque[tuple[Generate | Choose, Future[Any]]] = deque()
        self._totals: Counter[str] = Counter()
        self._closing = self._ended = False
        self._door = threading.Lock()
        """Nothing is put in hand once nobody would take it up."""

    def submit(self, request: Generate | Choose) -> Future[Any]:
        """Put a request in hand; from any thread."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        with self._door:
            if not self._ended:
                self._waiting.append((request, future))
                return future
        future.set_exception(Transient(_CLOSED))
        return future

    def counts(self) -> dict[str, float]:
        """All counters by name; from any thread."""
        return {name: float(count) for name, count in self._totals.items()}

    def close(self) -> None:
        """Make `run` end after the request in hand."""
        self._closing = True

    def run(self) -> None:
        """Answer requests until closed."""
        with torch.inference_mode():
            while not self._closing:
                if self._waiting:
                    self._answer(*self._waiting.popleft())
                else:
                    time.sleep(IDLE_S)
        with self._door:
            self._ended = True
        while self._waiting:
            self._waiting.popleft()[1].set_exception(Transient(_CLOSED))

    def _give_up_late_ones(self) -> None:
        """Of those that wait for their turn; called at every token of the one that has it."""
        for request, future in list(self._waiting):
            try:
                refuse(request)
            except ModelError as error:
                self._waiting.remove((request, future))
                self._totals["errors"] += 1
                future.set_exception(error)

    def _answer(self, request: Generate | Choose, future: Future[Any]) -> None:
        self.busy_since = time.monotonic()
        try:
            refuse(request)
            result: Generated | Chosen
            result = self._generate(request) if isinstance(request, Generate) else self._choose(request)
            self._totals["requests"] += 1
            self._totals["prompt_tokens"] += result.usage.prompt_tokens
            self._totals["generated_tokens"] += result.usage.generated_tokens
            future.set_result(result)
        except StagebeamError as error:
            self._totals["errors"] += 1
            future.set_exception(error)
        except Exception as error:  # the loop outlives whatever a model raises
            self._totals["crashes"] += 1
            future.set_exception(ModelError(f"the model crashed: {error}", code="crash", retryable=True))
        finally:
            self.busy_since = None

    def _generate(self, request: Generate) -> Generated:
        started = time.monotonic()
        inputs = self._inputs(request, request.prompt, request.prefix_ids)
        length = inputs["input_ids"].shape[1]
        stop = _Stop(request, self._encoder, length, self._ends, self._give_up_late_ones)
        out = self._model.generate(
            **{name: value.repeat_interleave(len(request.seeds), 0) for name, value in inputs.items()},
            do_sample=False,
            max_new_tokens=request.sampling.max_tokens,
            suppress_tokens=self._mute,
            logits_processor=LogitsProcessorList([_Noise(request, length)]),
            stopping_criteria=StoppingCriteriaList([stop]),
        )
        refuse(request)
        candidates = tuple(
            self._candidate(request, place, out[place, length:].tolist()) for place in range(len(request.seeds))
        )
        tokens = sum(candidate.tokens for candidate in candidates)
        return Generated(
            candidates=candidates,
            usage=self._usage(request, inputs, tokens, started),
        )

    def _candidate(self, request: Generate, place: int, ids: Sequence[int]) -> Candidate:
        end = next((at for at, token in enumerate(ids) if token in self._ends), len(ids))
        kept, text = list(ids[:end]), self._encoder.text(ids[:end])
        finish = Finish.LENGTH if end == len(ids) else Finish.EARLY_END if request.stop else Finish.STOP
        if request.stop and request.stop in text:
            while self._encoder.closes(kept[:-1], request.stop):
                kept.pop()
            text, finish = text[: text.index(request.stop) + len(request.stop)], Finish.STOP
        return Candidate(request.indices[place], text, len(kept), finish, tuple(kept), request.seeds[place])

    def _choose(self, request: Choose) -> Chosen:
        started = time.monotonic()
        ids = self._encoder.label_ids(request.labels)
        inputs = self._inputs(request, request.prompt, ())
        shares = torch.softmax(self._model(**inputs).logits[0, -1].double(), -1)
        weights = [float(shares[i].sum()) for i in ids]
        usage = self._usage(request, inputs, 0, started)
        return Chosen(probabilities=tuple(weight / sum(weights) for weight in weights), usage=usage)

    def _usage(self, request: Request, inputs: Mapping[str, torch.Tensor], tokens: int, started: float) -> Usage:
        ids = inputs["input_ids"]
        return Usage(
            prompt_tokens=ids.shape[1],
            generated_tokens=tokens,
            vision_calls=len(request.prompt.images),
            seconds=time.monotonic() - started,
            image_tokens=int((ids == getattr(self._processor, "image_token_id", -1)).sum()),
        )

    def _inputs(self, request: Request, prompt: Prompt, prefix_ids: Sequence[int]) -> Mapping[str, torch.Tensor]:
        """The processor's tensors, the path so far appended as token ids."""
        images = [decode(image, request.load_image) for image in prompt.images]
        text = self._encoder.rendered(prompt)
        data = self._processor(
            text=[text], images=[images] if images else None, return_tensors="pt", add_special_tokens=False
        ).to(self._model.device)
        found = dict(data)
        path = self._encoder.path_ids(prompt, prefix_ids)
        if path:
            extra = torch.tensor([path], device=self._model.device)
            found["input_ids"] = torch.cat([found["input_ids"], extra], dim=1)
            found["attention_mask"] = torch.ones_like(found["input_ids"])
            for name in ("token_type_ids", "mm_token_type_ids"):
                if name in found:
                    found[name] = torch.cat([found[name], torch.zeros_like(extra)], dim=1)
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", 1 << 30)
        if found["input_ids"].shape[1] >= context:
            raise ModelError(f"the prompt fills the context of {context} tokens", code="context_overflow")
        return found


def refuse(request: Request) -> None:
    """Raise when nobody waits for the request any more."""
    if request.cancelled():
        raise ModelError("the call was cancelled", code="cancelled")
    if request.deadline is not None and time.monotonic() >= request.deadline:
        raise ModelError("the deadline passed before the call ended", code="deadline")


class _Noise(LogitsProcessor):  # type: ignore[misc]
    """Draws each row's token with its own seed and leaves `generate` no other choice."""

    def __init__(self, request: Generate, length: int) -> None:
        self._request, self._length = request, length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        request = self._request
        draw = Draw(
            [request.sampling] * len(scores), [[seed] for seed in request.seeds], scores.shape[1], scores.device
        )
        at = torch.full((len(scores),), input_ids.shape[1] - self._length, device=scores.device)
        drawn = draw(scores, at)[:, None]
        return torch.full_like(scores, float("-inf")).scatter_(1, drawn, 0.0)


class _Stop(StoppingCriteria):  # type: ignore[misc]
    """Ends a row at its end tag, and all rows when nobody waits any more."""

    def __init__(
        self, request: Generate, encoder: Encoder, length: int, ends: frozenset[int], meanwhile: Callable[[], None]
    ) -> None:
        self._request, self._encoder, self._length, self._ends = request, encoder, length, ends
        self._meanwhile = meanwhile

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        request = self._request
        self._meanwhile()
        late = request.deadline is not None and time.monotonic() >= request.deadline
        over = late or request.cancelled()
        stop = request.stop
        ended = [
            over or (bool(stop) and self._encoder.closes(row, stop)) for row in input_ids[:, self._length :].tolist()
        ]
        return torch.tensor(ended, device=input_ids.device)
