"""The client that blocks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx
import orjson

from stagebeam import calls
from stagebeam.calls import Call, Image, Out
from stagebeam.errors import ApiError, Unreachable
from stagebeam.records import Answer, Job, Result
from stagebeam.sources import Source, input_file, name_of

TIMEOUT_S = 60.0
TRIES = 4
SENT_BYTES = 2**20
ASKED_AT_ONCE = 1000
"""Hashes of one question at most, by the API."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
POLL_S = 0.2
LONGEST_POLL_S = 5.0
REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
"""Methods that may be sent again after a failure. A 429 was refused before anything was done: always."""


class Client:
    """A stagebeam server. Use it as a context manager, or call `close`.

    Args:
        url: where the server is.
        key: bearer token; not needed on a loopback server without keys.
        http: an httpx client to use in place of our own; it stays open.

    Every method raises `ApiError` when the server refuses and `Unreachable` when none answers.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8000", key: str | None = None, *, http: httpx.Client | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._own = http is None
        self._http = http or httpx.Client(timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        if self._own:
            self._http.close()

    def submit(
        self, source: Source, *, dataset: Mapping[str, Any] | None = None, roots: Sequence[Path] = (), **options: Any
    ) -> Job:
        """Send a file, a folder or lines, with their local images, and start a job over it.

        Args:
            source: a path of any known format, or lines.
            dataset: format, columns, question, split, limit (see `docs/datasets.md`).
            roots: further folders that image paths may lead into.
            options: fields of `POST /api/jobs`: model, policy, priority, on_bad_line, name, metadata, ...
        """
        chosen = calls.given({"name": name_of(source), **options})
        return self._do(calls.submit(self.upload(source, dataset=dataset, roots=roots), chosen))

    def plan(
        self, source: Source, *, dataset: Mapping[str, Any] | None = None, roots: Sequence[Path] = (), **options: Any
    ) -> dict[str, Any]:
        """What `submit` would come to: lines, errors, calls and tokens. Starts nothing."""
        return self._do(calls.plan(self.upload(source, dataset=dataset, roots=roots), calls.given(options)))

    def upload(self, source: Source, *, dataset: Mapping[str, Any] | None = None, roots: Sequence[Path] = ()) -> str:
        """Send the input file of `submit` alone; its id."""
        with tempfile.TemporaryFile() as spool:
            for piece in input_file(source, dataset or {}, roots, self._has, self._put_blob):
                spool.write(piece)
            headers = {"content-type": "application/octet-stream", "content-length": str(spool.tell())}
            params = {"filename": f"{name_of(source)}.jsonl"}
            answer = self._request("POST", "/api/files", params=params, content=_Whole(spool), headers=headers)
        return str(answer.json()["id"])

    def job(self, job_id: str) -> Job:
        """One job."""
        return self._do(calls.job(job_id))

    def jobs(self, *, limit: int = 100, status: Sequence[str] = (), name: str | None = None) -> list[Job]:
        """Jobs of the project, newest first."""
        return self._do(calls.jobs(limit, status, name))

    def wait(self, job_id: str, timeout_s: float | None = None, seen: Callable[[Job], None] | None = None) -> Job:
        """The job when it has ended; `seen` is called with each look at it. Raises TimeoutError."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        pause = POLL_S
        while not (job := self.job(job_id)).ended:
            if seen:
                seen(job)
            if end is not None and time.monotonic() + pause > end:
                raise TimeoutError(f"job {job_id} is {job.status} after {timeout_s} s; it goes on")
            time.sleep(pause)
            pause = min(LONGEST_POLL_S, pause * 1.2)
        return job

    def cancel(self, job_id: str, reason: str = "", *, now: bool = False) -> Job:
        """Start nothing more; what runs may end within ten minutes, or is given up with `now`. Answers stay."""
        return self._do(calls.cancel(job_id, reason, now=now))

    def pause(self, job_id: str, reason: str = "") -> Job:
        """Start no more of its queries."""
        return self._do(calls.action(job_id, "pause", reason))

    def resume(self, job_id: str, reason: str = "") -> Job:
        """Go on with a paused job."""
        return self._do(calls.action(job_id, "resume", reason))

    def retry(self, job_id: str, reason: str = "") -> Job:
        """Start the failed, cancelled and expired queries of an ended job again."""
        return self._do(calls.action(job_id, "retry", reason))

    def clone(self, job_id: str, **changes: Any) -> Job:
        """Submit the same input again with changes: policy, model, priority, name, ..."""
        return self._do(calls.clone(job_id, changes))

    def results(self, job_id: str, *, trace: bool = False, after_line: int = 0) -> Iterator[Result]:
        """Every query that ended, in the order of the input, as a stream."""
        params = {"trace": trace, "after": after_line}
        with self._stream(f"{calls.job_path(job_id)}/results", params) as response:
            yield from map(Result.of, _decoded(response.iter_bytes()))

    def ended(self, job_id: str, after: str | None = None) -> list[Result]:
        """The next thousand results in the order in which they end; the last one's `raw["cursor"]` goes on."""
        params = calls.given({"after": after})
        answer = self._request("GET", f"{calls.job_path(job_id)}/ended", params=params)
        return list(map(Result.of, _decoded([answer.content])))

    def export(
        self,
        job_id: str,
        path: str | Path,
        *,
        format: str | None = None,  # noqa: A002 - the parameter of the API
        trace: bool = False,
        joined: bool = False,
    ) -> Path:
        """Write the results to a file, as the ending of its name says: jsonl, csv or parquet.

        With `joined` the columns of the input stand beside ours; one called like ours is `input_NAME` there.
        """
        target = Path(path)
        params = {"format": format or target.suffix.lstrip(".") or "jsonl", "trace": trace, "joined": joined}
        with self._stream(f"{calls.job_path(job_id)}/export", params) as response, target.open("wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
        return target

    def trace(self, job_id: str, custom_id: str) -> dict[str, Any]:
        """How a query was thought through: stages, candidates, verdicts. Raises KeyError when there is none."""
        found = self._do(calls.find(job_id, custom_id))
        if not found:
            raise KeyError(custom_id)
        return self._do(calls.trace(found[0]))

    def ask(
        self, question: str, images: Sequence[Image] = (), *, model: str = "", timeout_s: float = 600.0, **search: Any
    ) -> Answer:
        """One question now. `search` holds policy fields, and `trace=True` for the hidden stages."""
        return self._do(calls.ask(question, images, model, search, timeout_s))

    def _do(self, call: Call[Out]) -> Out:
        extra = {} if call.timeout_s is None else {"timeout": call.timeout_s}
        params = {name: value for name, value in call.params.items() if value not in (None, [])}
        return call.parse(self._request(call.method, call.path, params=params, json=call.json, **extra).json())

    def _request(self, method: str, path: str, **given: Any) -> httpx.Response:
        headers = {**self._headers, **given.pop("headers", {})}
        for attempt in range(1, TRIES + 1):
            try:
                response = self._http.request(method, self.url + path, headers=headers, **given)
            except httpx.TransportError as error:
                if attempt == TRIES or method not in REPEATABLE:
                    raise Unreachable(f"no answer from {self.url} ({type(error).__name__})") from error
                time.sleep(FIRST_PAUSE_S * 2**attempt)
                continue
            pause = retry_pause(response, method, attempt)
            if pause is None:
                return checked(response)
            time.sleep(pause)
        raise AssertionError  # the last attempt returned or raised

    @contextmanager
    def _stream(self, path: str, params: Mapping[str, Any]) -> Iterator[httpx.Response]:
        try:
            with self._http.stream("GET", self.url + path, params=dict(params), headers=self._headers) as response:
                if response.is_error:
                    response.read()
                yield checked(response)
        except httpx.TransportError as error:
            raise Unreachable(f"no answer from {self.url} ({type(error).__name__})") from error

    def _has(self, hashes: Sequence[str]) -> Iterable[str]:
        missing: set[str] = set()
        for start in range(0, len(hashes), ASKED_AT_ONCE):
            asked = {"sha256": list(hashes[start : start + ASKED_AT_ONCE])}
            missing.update(self._request("POST", "/api/blobs/missing", json=asked).json()["missing"])
        return [sha256 for sha256 in hashes if sha256 not in missing]

    def _put_blob(self, sha256: str, data: bytes, _media_type: str) -> None:
        self._request("PUT", f"/api/blobs/{sha256}", content=data)


class _Whole:
    """A file as the content of a request, from its beginning each time the request is sent."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(SENT_BYTES):
            yield chunk


def retry_pause(response: httpx.Response, method: str, attempt: int) -> float | None:
    """Seconds until the request should be sent again, or None when its answer stands."""
    may = response.status_code == 429 or (response.status_code in (502, 503, 504) and method in REPEATABLE)
    if not may or attempt == TRIES or response.headers.get("x-should-retry") == "false":
        return None
    pause = retry_after_s(response)
    if pause is None:
        return float(FIRST_PAUSE_S * 2**attempt)
    return pause if pause <= LONGEST_PAUSE_S else None


def retry_after_s(response: httpx.Response) -> float | None:
    """What the server says to wait."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdigit() else None


def checked(response: httpx.Response) -> httpx.Response:
    """The response itself. Raises ApiError when it is an error."""
    if not response.is_error:
        return response
    try:
        body = response.json()
    except ValueError:
        body = {}
    raise ApiError(response.status_code, body if isinstance(body, dict) else {}, retry_after_s(response))


def _decoded(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (orjson.loads(line) for line in whole if line)
    if rest:
        yield orjson.loads(rest)
