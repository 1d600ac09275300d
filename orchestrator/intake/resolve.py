"""From references to stored images: each distinct source is read and checked once, each image stored once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from orchestrator.intake.fetch import Fetcher
from orchestrator.intake.keeper import Keeper
from orchestrator.intake.paths import FoundFile, locate, read_file
from orchestrator.intake.pictures import Limits, Picture, check_size, digest, from_data_uri, inspect
from orchestrator.intake.records import ImageRef
from orchestrator.intake.slices import cut, in_order
from reasoning.errors import BadInput

Item = TypeVar("Item")
Key = TypeVar("Key")

THREADS = 8
"""Images read at the same time; mostly they wait for a network or a disk."""

DECODERS = 2
"""Images decoded at the same time: the largest allowed takes 256 MB while it is open."""

CACHED_SOURCES = 20_000
"""Sources remembered, so that memory stays the same however many a job names."""

CHECKERS = 2
"""Threads for images that lines bring along: more would only take the interpreter from each other."""

SLICE = 16
"""Images that one thread takes in one go at most: handing over each would cost as much as looking at a small one."""

HANDFUL, HANDFUL_BYTES = 256, 4 * 2**20
"""Images, and about as many bytes of them, that are held until the database has said which it knows."""

SERVER_ADVICE = (
    "Name the folder in STAGEBEAM_IMAGE_ROOTS on the server, or submit with `stagebeam job submit`, "
    "which sends images along."
)


class Recent(Generic[Key, Item]):
    """The entries used last, `size` of them. Thread-safe."""

    def __init__(self, size: int = CACHED_SOURCES) -> None:
        self._size = size
        self._entries: OrderedDict[Key, Item] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Item | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: Key, entry: Item) -> None:
        with self._lock:
            self._entries[key] = entry
            self._entries.move_to_end(key)
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)


@dataclass(slots=True)
class Verified:
    """Images that were decoded before, by file and by content. Kept for the life of the process."""

    by_file: Recent[FoundFile, Picture] = field(default_factory=Recent)
    by_hash: Recent[str, Picture] = field(default_factory=Recent)
    decoders: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(DECODERS))

    def check(self, data: bytes, limits: Limits) -> Picture:
        """Describe the image, decoding it unless the same bytes were decoded before. Raises BadInput."""
        check_size(len(data), limits)
        sha256 = digest(data)
        picture = self.by_hash.get(sha256)
        if picture is None or picture.width * picture.height > limits.max_pixels:
            with self.decoders:
                picture = inspect(data, limits, sha256)
            self.by_hash.put(sha256, picture)
        return picture


@dataclass(frozen=True, slots=True)
class _Seen:
    """An image that was checked: its bytes, or the file that they were read from earlier."""

    picture: Picture
    source: bytes | FoundFile

    @property
    def held_bytes(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else 0


class ImageResolver:
    """Resolves the references of one job. Failures are remembered too: an address that is down is asked once."""

    def __init__(
        self,
        keeper: Keeper,
        limits: Limits,
        verified: Verified,
        *,
        roots: Sequence[Path] = (),
        fetcher: Fetcher | None = None,
    ) -> None:
        self._keeper = keeper
        self._limits = limits
        self._verified = verified
        self._roots = tuple(roots)
        self._fetcher = fetcher
        self._outcomes: Recent[ImageRef, str | BadInput] = Recent()
        self._stored: Recent[str, bool] = Recent()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="intake-images")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._keeper.close()

    def resolve(self, refs: Iterable[ImageRef]) -> dict[ImageRef, str | BadInput]:
        """Content hash of each distinct reference in their order, stored by now, or why there is none."""
        outcomes: dict[ImageRef, str | BadInput] = {}
        blob_refs: list[ImageRef] = []
        others: list[ImageRef] = []
        distinct = list(dict.fromkeys(refs))
        for ref in distinct:
            before = self._outcomes.get(ref) if ref.kind != "data" else None
            if before is not None:
                outcomes[ref] = before
            elif ref.kind == "error":
                outcomes[ref] = BadInput(ref.value, code=ref.code)
            else:
                (blob_refs if ref.kind == "blob" else others).append(ref)
        outcomes.update(self._find_blobs(blob_refs))
        outcomes.update(self._keep_others(others))
        return {ref: outcomes[ref] for ref in distinct}

    def _find_blobs(self, refs: Sequence[ImageRef]) -> dict[ImageRef, str | BadInput]:
        known = self._keeper.known([ref.value for ref in refs]) if refs else set()
        outcomes: dict[ImageRef, str | BadInput] = {}
        for ref in refs:
            if ref.value in known:
                outcomes[ref] = ref.value
                self._outcomes.put(ref, ref.value)
            else:
                outcomes[ref] = BadInput(
                    f"no image with the hash {ref.value[:12]}... is stored; store it first.", code="image_missing"
                )
        return outcomes

    def _keep_others(self, refs: Sequence[ImageRef]) -> dict[ImageRef, str | BadInput]:
        outcomes: dict[ImageRef, str | BadInput] = {}
        fresh: dict[str, Picture] = {}
        for handful in _handfuls(self._examined(refs)):
            seen = {found.picture.sha256: found for _, found in handful if isinstance(found, _Seen)}
            lacking = self._lacking([sha256 for sha256 in seen if sha256 not in fresh])
            broken = self._upload([seen[sha256] for sha256 in lacking])
            fresh.update((sha256, seen[sha256].picture) for sha256 in lacking if sha256 not in broken)
            for ref, found in handful:
                outcome = found if isinstance(found, BadInput) else found.picture.sha256
                outcomes[ref] = outcome if isinstance(outcome, BadInput) else broken.get(outcome, outcome)
                if ref.kind != "data":
                    self._outcomes.put(ref, outcomes[ref])
        self._keeper.record(list(fresh.values()))
        for sha256 in fresh:
            self._stored.put(sha256, True)
        return outcomes

    def _examined(self, refs: Sequence[ImageRef]) -> Iterator[tuple[ImageRef, _Seen | BadInput]]:
        """Each reference with what it leads to: first those that are here, then those that have to be waited for."""
        here = [ref for ref in refs if ref.kind == "data"]
        away = [ref for ref in refs if ref.kind != "data"]
        yield from in_order(self._pool, CHECKERS, self._examine, cut(here, SLICE))
        yield from in_order(self._pool, THREADS, self._examine, cut(away, 1))

    def _lacking(self, hashes: Sequence[str]) -> list[str]:
        """Those of the images that are not stored yet."""
        unsure = [sha256 for sha256 in hashes if not self._stored.get(sha256)]
        known = self._keeper.known(unsure) if unsure else set()
        for sha256 in known:
            self._stored.put(sha256, True)
        return [sha256 for sha256 in unsure if sha256 not in known]

    def _upload(self, images: Sequence[_Seen]) -> dict[str, BadInput]:
        """Hand the images to the keeper; why it could not be done for some."""
        broken = {}
        threads = self._keeper.threads
        size = max(1, min(SLICE, len(images) // threads))  # with something left for each thread
        for image, error in in_order(self._pool, threads, self._upload_one, cut(images, size)):
            if error is not None:
                broken[image.picture.sha256] = error
        return broken

    def _upload_one(self, image: _Seen) -> BadInput | None:
        """Runs in a thread of the pool."""
        data = image.source
        try:
            if isinstance(data, FoundFile):
                data = read_file(data, self._limits.max_bytes)
                if digest(data) != image.picture.sha256:
                    return BadInput("the image file changed while it was read; submit again.", code="image_unreadable")
        except BadInput as error:
            return error
        self._keeper.upload(image.picture, data)
        return None

    def _examine(self, ref: ImageRef) -> _Seen | BadInput:
        """Read and check one image; runs in a thread of the pool."""
        try:
            if ref.kind == "path":
                return self._examine_file(locate(ref.value, self._roots, advice=SERVER_ADVICE))
            data = self._read(ref)
            return _Seen(self._verified.check(data, self._limits), data)
        except BadInput as error:
            return error

    def _examine_file(self, file: FoundFile) -> _Seen:
        check_size(file.size, self._limits)
        picture = self._verified.by_file.get(file)
        if picture is not None:
            return _Seen(picture, file)
        data = read_file(file, self._limits.max_bytes)
        picture = self._verified.check(data, self._limits)
        self._verified.by_file.put(file, picture)
        return _Seen(picture, data)

    def _read(self, ref: ImageRef) -> bytes:
        if ref.kind == "data":
            return from_data_uri(ref.value, self._limits)
        if ref.kind == "object":
            return self._keeper.read_object(ref.value, self._limits.max_bytes)
        if self._fetcher is None:
            raise BadInput(
                "image addresses are not fetched on this server; send a path or a data URI, "
                "or set STAGEBEAM_IMAGE_URLS=true on the server.",
                code="image_url_refused",
            )
        return self._fetcher.fetch(ref.value)


def _handfuls(
    found: Iterable[tuple[ImageRef, _Seen | BadInput]],
) -> Iterator[list[tuple[ImageRef, _Seen | BadInput]]]:
    """The items in groups of at most `HANDFUL` and about `HANDFUL_BYTES`."""
    handful: list[tuple[ImageRef, _Seen | BadInput]] = []
    held = 0
    for ref, item in found:
        handful.append((ref, item))
        held += item.held_bytes if isinstance(item, _Seen) else 0
        if len(handful) >= HANDFUL or held >= HANDFUL_BYTES:
            yield handful
            handful, held = [], 0
    if handful:
        yield handful
