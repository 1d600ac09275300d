"""The one loop: take in, look at images, admit, run one forward pass, draw, finish. Again.

Everything happens at iteration level: a finished row leaves and a waiting one enters at the next step, from
whichever query. Only this thread touches the device.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import structlog
import torch

from reasoning.errors import ModelError, StagebeamError, Transient
from reasoning.records import Finish
from workers.engine.adapters.base import Adapter
from workers.engine.admission import Admission, Entry, Limits
from workers.engine.counting import Tally
from workers.engine.device import Device
from workers.engine.encode import Encoder
from workers.engine.finishing import append, candidates, chosen, generated
from workers.engine.jobs import Job, Row
from workers.engine.pools import PoolFull
from workers.engine.preparing import FeatureCache, Preparer
from workers.engine.protocol import Choose, Chosen, Generate, Generated
from workers.engine.ragged import Ragged

log = structlog.get_logger()

IDLE_S = 0.02
"""Pause between looks at deadlines while nothing runs."""

_CLOSED = "the engine was closed; the call runs again on another worker"
_TOO_LARGE = "the device has too little memory for this call alone; lower max_tokens or raise memory_mb"


class Loop:
    """Owns all jobs in hand and the device. `run` is the body of the engine's thread."""

    def __init__(
        self, adapter: Adapter, encoder: Encoder, ends: frozenset[int], limits: Limits, ragged: Ragged | None = None
    ) -> None:
        """`ends` are the token ids that end a turn; `ragged` makes the steps where its kernel runs."""
        self.tally = Tally()
        self._encoder = encoder
        self._ends = ends
        features = FeatureCache(limits.feature_bytes)
        self._preparer = Preparer(adapter, encoder, features, limits.threads)
        self._admission = Admission(adapter, features, limits, self.tally)
        self._device = Device(adapter, self._admission, self.tally, ragged)
        self._arrived: deque[Job] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._preparing: set[Job] = set()
        self._waiting: list[Job] = []
        self._open: list[Job] = []

    @property
    def busy_since(self) -> float | None:
        """When the device call in hand began; None between calls. Read by the watchdog."""
        return self._device.busy_since

    def submit(self, request: Generate | Choose) -> Future[Any]:
        """Put a request in hand; from any thread."""
        job = Job(request=request, future=Future())
        job.future.set_running_or_notify_cancel()
        if isinstance(request, Generate):
            job.waiting = list(zip(request.indices, request.seeds, strict=True))
        self._preparing.add(job)
        if self._closing:
            self._fail(job, Transient(_CLOSED))
        else:
            # Refused when the loop closed in between: then `run` fails what is being prepared.
            with suppress(RuntimeError):
                self._preparer.submit(job, self._deliver)
        return job.future

    def close(self) -> None:
        """Make `run` end after the step in hand; what is in hand fails with `Transient`."""
        self._closing = True
        self._wake.set()

    def counts(self) -> dict[str, float]:
        """All counters and what is held now, by name; from any thread."""
        return self.tally.values() | self._admission.held()

    def run(self) -> None:
        """Step until closed."""
        with torch.inference_mode():
            while not self._closing:
                if not self.step():
                    self._wake.wait(IDLE_S)
                    self._wake.clear()
            self._preparer.close()
            self._fail_all([*self._preparing, *self._waiting, *self._open], Transient(_CLOSED))

    def step(self) -> bool:
        """One iteration; whether there was anything to do."""
        self._take_in()
        self._give_up_late_ones()
        try:
            self._look()
            self._admit()
            if not self._open:
                return bool(self._waiting)
            self._device.forward()
            self._start_rows()
            self._draw_tokens()
        except (torch.OutOfMemoryError, MemoryError, PoolFull) as error:
            self._make_room(error)
        except Exception as error:
            self._crashed(error)
        finally:
            self._device.busy_since = None
        return True

    def _deliver(self, job: Job) -> None:
        self._arrived.append(job)
        self._wake.set()

    def _take_in(self) -> None:
        while self._arrived:
            job = self._arrived.popleft()
            if job not in self._preparing:
                continue  # given up meanwhile
            self._preparing.discard(job)
            if job.error:
                self._fail(job, job.error)
            else:
                self._waiting.append(job)

    def _give_up_late_ones(self) -> None:
        now = time.monotonic()
        for job in [*self._preparing, *self._waiting, *self._open]:
            if job.request.cancelled():
                self._fail(job, ModelError("the call was cancelled", code="cancelled"))
            elif job.request.deadline is not None and now >= job.request.deadline:
                self._fail(job, ModelError("the deadline passed before the call ended", code="deadline"))

    def _look(self) -> None:
        """Run the vision tower over images that waiting jobs need."""
        started = self._device.busy_since = time.monotonic()
        failed = self._admission.sight.look(self._waiting)
        self.tally.vision_seconds += time.monotonic() - started
        for job in list(self._waiting) if failed else ():
            reasons = [failed[image] for image in job.inputs if image in failed]
            if reasons:
                self._fail(job, ModelError(f"the vision tower failed: {reasons[0]}", code="crash", retryable=True))

    def _admit(self) -> None:
        """Move waiting jobs into the batch, as far as there is room."""
        if self._admission.holds:
            return
        for job in list(self._waiting):
            try:
                entry = self._admission.admit(job, job.layout) if job.layout else Entry.AGAIN
            except RuntimeError as error:
                self._fail(job, ModelError(f"the model crashed: {error}", code="crash", retryable=True))
                continue
            if entry is Entry.FULL:
                if not self._open:
                    self._fail(job, ModelError(_TOO_LARGE, code="out_of_memory"))
                return
            if entry is Entry.ADMITTED:
                self._waiting.remove(job)
                self._open.append(job)
            elif entry is Entry.AGAIN:
                self._waiting.remove(job)
                self._preparing.add(job)
                self._preparer.submit(job, self._deliver)

    def _start_rows(self) -> None:
        """Answer the choices whose prompt is computed, and start candidates as far as there is room."""
        for job in list(self._open):
            if job.trunk is None or job.trunk.logits is None:
                continue
            if isinstance(job.request, Choose):
                self._finish(job, chosen(job, job.trunk.logits))
            elif job.waiting:
                self._admission.start_rows(job, self._device.work)

    def _draw_tokens(self) -> None:
        """Draw the next token of every running candidate, part those that differ and finish those that ended."""
        rows = self._admission.twigs.in_use
        for row, drawn in zip(rows, self._device.draw(rows) if rows else (), strict=True):
            for part, token in self._admission.part(row, drawn, self._device.work):
                finish = append(part, token, self._ends, self._encoder)
                if finish:
                    self._end_row(part, finish)

    def _end_row(self, row: Row, finish: Finish) -> None:
        job = row.job
        self._admission.end_row(row, keep=True)
        job.seconds += self._device.work - row.work
        job.done.update((found.index, found) for found in candidates(row, finish, self._encoder))
        if not job.waiting and not job.rows:
            self._finish(job, generated(job))

    def _finish(self, job: Job, result: Generated | Chosen) -> None:
        self._admission.release(job)
        self._open.remove(job)
        self.tally.finished(result.usage, judged=isinstance(result, Chosen))
        job.future.set_result(result)

    def _fail(self, job: Job, error: StagebeamError) -> None:
        self._admission.release(job, keep=False)
        self._preparing.discard(job)
        for jobs in (self._waiting, self._open):
            if job in jobs:
                jobs.remove(job)
        self.tally.errors += 1
        if not job.future.done():
            job.future.set_exception(error)

    def _make_room(self, error: Exception) -> None:
        """Too little memory for this step: put back what it would have computed and the youngest rows."""
        self.tally.out_of_memory += 1
        admission = self._admission
        alone = admission.twigs.active + len(admission.fills) <= 1
        # What was about to be computed is lost with the step.
        back = [job for job in self._open if job.begins]
        admission.throttle.halve(admission.running)
        others = [] if alone else [job for job in reversed(self._open) if job not in back]
        for job in [*back, *others]:
            if job in back or admission.running > admission.throttle.rows:
                admission.put_back(job)
                self._open.remove(job)
                self._waiting.insert(0, job)
        self._device.forget()
        if alone:
            self._fail_all((back or self._open)[:1], ModelError(f"{_TOO_LARGE} ({error})", code="out_of_memory"))

    def _crashed(self, error: Exception) -> None:
        self.tally.crashes += 1
        self._device.forget()
        reason = f"the model crashed: {type(error).__name__}: {error}"
        log.error("The model crashed; its calls fail.", action="engine.crash", calls=len(self._open), exc_info=error)
        self._fail_all(self._open, ModelError(reason, code="crash", retryable=True))

    def _fail_all(self, jobs: Iterable[Job], error: StagebeamError) -> None:
        for job in list(jobs):
            self._fail(job, error)
