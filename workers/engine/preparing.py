"""Ahead of need: prompts rendered and tokenised, images decoded and preprocessed, on a thread pool."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from weakref import WeakValueDictionary

from reasoning.errors import ModelError, StagebeamError, Transient
from workers.engine.adapters.base import Adapter, Features, ImageInput
from workers.engine.encode import Encoder
from workers.engine.images import decode
from workers.engine.jobs import Job
from workers.engine.protocol import Generate, ImageLoader


class FeatureCache:
    """What the vision tower made of each image, by content hash, oldest use first; `trim` keeps the byte budget."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._entries: OrderedDict[str, tuple[Features, ImageInput]] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0

    def get(self, image: str) -> Features | None:
        with self._lock:
            if image not in self._entries:
                return None
            self._entries.move_to_end(image)
            return self._entries[image][0]

    def stub(self, image: str) -> ImageInput | None:
        """What a prompt needs of the image; None when it is not cached."""
        with self._lock:
            entry = self._entries.get(image)
            return entry[1] if entry else None

    def put(self, image: str, features: Features, stub: ImageInput) -> None:
        with self._lock:
            self._entries[image] = (features, stub)
            self.nbytes += features.nbytes

    def trim(self, keep: Collection[str] = ()) -> None:
        """Give up what was used longest ago beyond the budget, but none of `keep`."""
        if self.nbytes <= self._budget:
            return
        with self._lock:
            for image in [image for image in self._entries if image not in keep]:
                if self.nbytes <= self._budget:
                    return
                self.nbytes -= self._entries.pop(image)[0].nbytes


class Preparer:
    """Turns requests into jobs that the loop can start at once."""

    def __init__(self, adapter: Adapter, encoder: Encoder, features: FeatureCache, threads: int) -> None:
        self._adapter = adapter
        self._encoder = encoder
        self._features = features
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="engine-prepare")
        self._lock = threading.Lock()
        self._coming: dict[str, Future[ImageInput]] = {}
        self._there: WeakValueDictionary[str, ImageInput] = WeakValueDictionary()
        """As long as a job that has not entered the batch holds them: pixels are large."""

    def submit(self, job: Job, deliver: Callable[[Job], None]) -> None:
        """Prepare `job` and hand it to `deliver`, with `job.error` set when it cannot run."""
        self._pool.submit(self._prepare, job, deliver)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, job: Job, deliver: Callable[[Job], None]) -> None:
        try:
            if not job.future.done():  # given up while it waited for this thread
                self._fill(job)
        except StagebeamError as error:
            job.error = error
        except Exception as error:
            job.error = ModelError(f"the prompt could not be prepared: {error}", code="bad_prompt")
        deliver(job)

    def _fill(self, job: Job) -> None:
        request, prompt = job.request, job.request.prompt
        prefix_ids = request.prefix_ids if isinstance(request, Generate) else ()
        # Features that were given up once while the job waited could be again: this time it brings all pixels.
        anew = job.layout is not None
        inputs = {image: self._input(image, request.load_image, anew=anew) for image in prompt.images}
        ids = self._encoder.ids(prompt, prefix_ids)
        job.layout = self._adapter.lay_out(ids, prompt.images, list(map(inputs.__getitem__, prompt.images)))
        job.inputs = {image: item for image, item in inputs.items() if item.tensors}
        context = self._adapter.context
        if len(job.layout) >= context:
            raise ModelError(
                f"the prompt has {len(job.layout)} tokens and the context holds {context}; "
                "shorten the question or send fewer images",
                code="context_overflow",
            )
        if isinstance(request, Generate):
            enders = self._encoder.enders(request.stop, self._adapter.vocabulary)
            job.enders = frozenset(enders.nonzero()[0].tolist())
        else:
            job.label_ids = self._encoder.label_ids(request.labels)

    def _input(self, image: str, load: ImageLoader, *, anew: bool) -> ImageInput:
        """The preprocessed image, computed once for all jobs that wait for it; no tensors when features exist."""
        stub = None if anew else self._features.stub(image)
        if stub is not None:
            return stub
        with self._lock:
            if (there := self._there.get(image)) is not None:
                return there
            future = self._coming.get(image)
            mine = future is None
            if future is None:
                future = self._coming[image] = Future()
        if mine:
            self._preprocess(image, load, future)
        try:
            return future.result()
        except Transient:
            if mine:
                raise
            # What kept another call from having the image need not keep this one.
            return self._input(image, load, anew=anew)

    def _preprocess(self, image: str, load: ImageLoader, future: Future[ImageInput]) -> None:
        try:
            found = self._adapter.image_input(decode(image, load))
        except Exception as error:
            with self._lock:
                del self._coming[image]
            future.set_exception(error)
        else:
            with self._lock:
                self._there[image] = found
                del self._coming[image]
            future.set_result(found)
